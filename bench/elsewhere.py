"""Simulates the usual way to scale Celery on Kubernetes: KEDA's Redis list scaler, an HPA, and the ReplicaSet.

KEDA reads the length of the list every `pollingInterval` (30 s). The HPA acts every 15 s and waits 300 s before it
scales down. The ReplicaSet chooses the pods to remove regardless of what they run. Work that does not end within the
pod's grace period is killed; with `acks_late` it runs again from its beginning. The settings are the defaults of KEDA
2, of the HorizontalPodAutoscaler and of Deployments.
"""

from __future__ import annotations

import random
from collections import deque

from bench.replay import Outcome, Replay, Trace

POLL_SECONDS = 30.0
SYNC_SECONDS = 15.0
STABLE_SECONDS = 300.0
GRACE_SECONDS = 30.0


def simulate(trace: Trace, *, slots: int, most: int, start_seconds: float, seed: int = 0) -> Outcome:
    """Run a trace.

    Args:
        trace: the Tasks.
        slots: Tasks that one pod runs in parallel, and the list length per pod in KEDA's settings.
        most: maximum number of pods; the pool starts without pods.
        start_seconds: from the decision to the first Task of a new pod.
        seed: of the choice of pods to remove.
    """
    return _Elsewhere(trace, slots, most, start_seconds, random.Random(seed)).run()


class _Elsewhere(Replay):
    def __init__(self, trace: Trace, slots: int, most: int, start_seconds: float, draw: random.Random) -> None:
        super().__init__(trace, slots, most, start_seconds)
        self._draw = draw
        self._length, self._wanted = 0, deque[tuple[float, int]]()

    def begin(self) -> None:
        self.at(self._draw.uniform(0, POLL_SECONDS), "poll")
        self.at(self._draw.uniform(0, SYNC_SECONDS), "sync")

    def decide(self, now: float, what: str) -> None:
        if what == "poll":
            self._length = len(self.queue)
            self.at(now + POLL_SECONDS, "poll")
        elif what == "sync":
            self._sync(now)
            self.at(now + SYNC_SECONDS, "sync")

    def _sync(self, now: float) -> None:
        wanted = min(-(-self._length // self.slots), self.most)
        self._wanted.append((now, wanted))
        while now - self._wanted[0][0] > STABLE_SECONDS:
            self._wanted.popleft()
        here = [pod for pod in self.pods if pod.serving]
        self.add(now, wanted - len(here))
        stays = max(count for _, count in self._wanted)
        for pod in self._draw.sample(here, max(len(here) - stays, 0)):
            pod.serving = False
            self.at(now + GRACE_SECONDS, "kill", pod=pod)
