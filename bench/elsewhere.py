"""The usual way to scale Celery on Kubernetes, simulated: KEDA's Redis list scaler, an HPA, and the ReplicaSet's choice of victims.

KEDA asks for the length of the list every `pollingInterval` (30 s), the HPA acts every 15 s and waits 300 s before it goes down, and
which pod goes does not depend on what it runs. What does not end within the pod's grace period is killed; with `acks_late` it runs
again from its beginning. Defaults of KEDA 2, of the HorizontalPodAutoscaler and of Deployments.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

POLL_SECONDS = 30.0
SYNC_SECONDS = 15.0
STABLE_SECONDS = 300.0
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of a trace."""

    waited: Sequence[float]
    """For each Task, seconds from its arrival to the start of the execution that counted."""
    killed: int
    """Executions that a scale-down cut off."""
    lost_seconds: float
    """Work that was done twice because of that."""
    ended: float
    """When the last Task ended that did."""
    never: int
    """Tasks that had not ended when nobody waited any longer: each time cut off before their end."""


@dataclass
class _Pod:
    ready_at: float
    leaving_at: float | None = None
    running: set[int] = field(default_factory=set)


def simulate(
    trace: Sequence[tuple[float, float]],
    *,
    slots: int,
    most: int,
    start_seconds: float,
    seed: int = 0,
    until: float = 4 * 3600,
) -> Outcome:
    """Run a trace.

    Args:
        trace: (arrival, duration) of each Task, seconds, by arrival.
        slots: Tasks that one pod runs at a time, and list length that KEDA is told to allow per pod.
        most: pods at most; there is none at the beginning.
        start_seconds: from the decision to the first Task of a new pod.
        seed: of the choice of victims.
        until: seconds after which nobody waits any longer.
    """
    return _Simulation(trace, slots, most, start_seconds, random.Random(seed)).run(until)


class _Simulation:
    def __init__(
        self, trace: Sequence[tuple[float, float]], slots: int, most: int, start_seconds: float, draw: random.Random
    ) -> None:
        self._trace = trace
        self._slots, self._most, self._start = slots, most, start_seconds
        self._draw = draw
        self._queue: deque[int] = deque()
        self._pods: list[_Pod] = []
        self._events: list[tuple[float, int, str, int, _Pod | None]] = []
        self._began: dict[int, float] = {}
        self._left = len(trace)
        self._length, self._wanted = 0, deque[tuple[float, int]]()
        self._number = self._killed = 0
        self._lost = self._ended = 0.0

    def run(self, until: float) -> Outcome:
        """All of it."""
        for number, (arrival, _) in enumerate(self._trace):
            self._at(arrival, "arrive", number)
        self._at(self._draw.uniform(0, POLL_SECONDS), "poll")
        self._at(self._draw.uniform(0, SYNC_SECONDS), "sync")
        now = 0.0
        while self._left and now < until:
            now, _, what, number, pod = heapq.heappop(self._events)
            if what == "arrive":
                self._queue.append(number)
            elif what == "poll":
                self._length = len(self._queue)
                self._at(now + POLL_SECONDS, "poll")
            elif what == "sync":
                self._sync(now)
                self._at(now + SYNC_SECONDS, "sync")
            elif what == "end" and pod is not None and number in pod.running:
                pod.running.discard(number)
                self._left -= 1
                self._ended = now
            elif what == "kill" and pod is not None:
                self._kill(now, pod)
            self._take(now)
        arrivals = [arrival for arrival, _ in self._trace]
        waited = [self._began[number] - arrivals[number] for number in sorted(self._began)]
        return Outcome(waited, self._killed, self._lost, self._ended, self._left)

    def _at(self, when: float, what: str, number: int = -1, pod: _Pod | None = None) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what, number, pod))

    def _sync(self, now: float) -> None:
        wanted = min(-(-self._length // self._slots), self._most)
        self._wanted.append((now, wanted))
        while now - self._wanted[0][0] > STABLE_SECONDS:
            self._wanted.popleft()
        here = [pod for pod in self._pods if pod.leaving_at is None]
        for _ in range(wanted - len(here)):
            pod = _Pod(now + self._start)
            self._pods.append(pod)
            self._at(pod.ready_at, "ready")
        stays = max(count for _, count in self._wanted)
        for pod in self._draw.sample(here, max(len(here) - stays, 0)):
            pod.leaving_at = now
            self._at(now + GRACE_SECONDS, "kill", pod=pod)

    def _kill(self, now: float, pod: _Pod) -> None:
        self._pods.remove(pod)
        for number in sorted(pod.running):
            self._killed += 1
            self._lost += now - self._began[number]
            self._queue.appendleft(number)
        pod.running.clear()

    def _take(self, now: float) -> None:
        for pod in self._pods:
            while self._queue and pod.leaving_at is None and pod.ready_at <= now and len(pod.running) < self._slots:
                number = self._queue.popleft()
                pod.running.add(number)
                self._began[number] = now
                self._at(now + self._trace[number][1], "end", number, pod)
