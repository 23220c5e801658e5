"""Runs a trace of Tasks through simulated pods. `bench.elsewhere` and `bench.ours` decide the number of pods."""

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
    """The outcome of a trace."""

    waited: Sequence[float]
    """For each Task, seconds from its arrival to the start of the execution that counted."""
    killed: int
    """Executions that a scale-down interrupted."""
    lost_seconds: float
    """Seconds of work that were repeated because of that."""
    ended: float
    """When the last Task ended."""
    never: int
    """Tasks that had not ended when the simulation stopped, because each execution was interrupted."""


@dataclass
class SimulatedPod:
    """A pod that runs several Tasks in parallel."""

    name: str
    created_at: float
    ready_at: float
    serving: bool = True
    """The pod is ready and takes waiting Tasks."""
    running: set[int] = field(default_factory=set)


class Replay(ABC):
    """Runs a trace, starting without pods. An event is arrive, ready, end, kill, or one of the rule's own.

    Args:
        trace: the Tasks.
        slots: Tasks that one pod runs in parallel.
        most: maximum number of pods.
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
        """Schedule the first of the rule's own events."""

    @abstractmethod
    def decide(self, now: float, what: str) -> None:
        """Apply the rule when a Task arrived, or at one of its own events."""

    def run(self, until: float = 4 * 3600) -> Outcome:
        """Run the trace, at most for this many seconds."""
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
        """Schedule an event."""
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what, number, pod))

    def add(self, now: float, count: int) -> None:
        """Start this many pods."""
        for _ in range(count):
            self._number += 1
            pod = SimulatedPod(f"pod-{self._number}", now, now + self._start)
            self.pods.append(pod)
            self.at(pod.ready_at, "ready", pod=pod)

    def remove(self, now: float, pod: SimulatedPod) -> None:
        """Kill a pod: its Tasks lose their work and wait again, at the head of the queue."""
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
