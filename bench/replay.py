"""A trace of Tasks run through simulated pods; who decides how many there are is somebody else's: `bench.elsewhere`, `bench.ours`."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

Trace = Sequence[tuple[float, float]]
"""(arrival, duration) of each Task, seconds, by arrival."""


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
class SimulatedPod:
    """A pod that runs some Tasks at a time."""

    name: str
    created_at: float
    ready_at: float
    serving: bool = True
    """It takes what waits."""
    running: set[int] = field(default_factory=set)


class Replay(ABC):
    """Runs a trace from no pod on. `what` happens at a time is one of arrive, ready, end, kill, or a rule's own.

    Args:
        trace: of Tasks.
        slots: Tasks that one pod runs at a time.
        most: pods at most.
        start_seconds: from the decision to the first Task of a new pod.
    """

    def __init__(self, trace: Trace, slots: int, most: int, start_seconds: float) -> None:
        self.trace = trace
        self.slots, self.most = slots, most
        self.queue: deque[int] = deque()
        self.pods: list[SimulatedPod] = []
        self._start = start_seconds
        self._events: list[tuple[float, int, str, int, SimulatedPod | None]] = []
        self._began: dict[int, float] = {}
        self._left = len(trace)
        self._number = self._killed = 0
        self._lost = self._ended = 0.0

    @abstractmethod
    def begin(self) -> None:
        """Put the first of the rule's own events into the future."""

    @abstractmethod
    def decide(self, now: float, what: str) -> None:
        """Do what the rule does when something arrived, or at an event of its own."""

    def run(self, until: float = 4 * 3600) -> Outcome:
        """All of it, but nothing that happens after so many seconds."""
        for number, (arrival, _) in enumerate(self.trace):
            self.at(arrival, "arrive", number)
        self.begin()
        now = 0.0
        while self._left and now < until:
            now, _, what, number, pod = heapq.heappop(self._events)
            if pod is None:
                if what == "arrive":
                    self.queue.append(number)
                self.decide(now, what)
            elif what == "kill":
                self.remove(now, pod)
            elif what == "end" and number in pod.running:
                pod.running.discard(number)
                self._left -= 1
                self._ended = now
            self._take(now)
        waited = [self._began[number] - self.trace[number][0] for number in sorted(self._began)]
        return Outcome(waited, self._killed, self._lost, self._ended, self._left)

    def at(self, when: float, what: str, number: int = -1, pod: SimulatedPod | None = None) -> None:
        """Let something happen."""
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what, number, pod))

    def add(self, now: float, count: int) -> None:
        """Start so many pods."""
        for _ in range(count):
            self._number += 1
            pod = SimulatedPod(f"pod-{self._number}", now, now + self._start)
            self.pods.append(pod)
            self.at(pod.ready_at, "ready", pod=pod)

    def remove(self, now: float, pod: SimulatedPod) -> None:
        """Kill a pod: what it runs is lost and waits again, at the head."""
        self.pods.remove(pod)
        for number in sorted(pod.running):
            self._killed += 1
            self._lost += now - self._began[number]
            self.queue.appendleft(number)
        pod.running.clear()

    def _take(self, now: float) -> None:
        for pod in self.pods:
            while self.queue and pod.serving and pod.ready_at <= now and len(pod.running) < self.slots:
                number = self.queue.popleft()
                pod.running.add(number)
                self._began[number] = now
                self.at(now + self.trace[number][1], "end", number, pod)
