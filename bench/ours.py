"""The operator's own decisions on simulated pods: `decide` for the number, `plan_scale_down` for the pods to remove.

Here the reports of workers arrive at once, and a removed pod has no grace period: work that it runs counts as
interrupted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bench.replay import Outcome, Replay, SimulatedPod, Trace
from taskflow_core.domain.workerpool import Scaling
from taskflow_core.ledger.presence import WorkerReport
from taskflow_operator.pools.pod_selection import Workers, plan_scale_down
from taskflow_operator.pools.scaler import PAUSE_SECONDS, TICK_SECONDS
from taskflow_operator.pools.scaling import Demand, ScalingHistory, decide
from taskflow_operator.runtime.pod import Pod

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def simulate(trace: Trace, *, slots: int, scaling: Scaling, start_seconds: float) -> Outcome:
    """Run a trace.

    Args:
        trace: the Tasks.
        slots: Tasks that one pod runs in parallel.
        scaling: settings of the pool, which starts without pods.
        start_seconds: from the decision to the first Task of a new pod.
    """
    return _Ours(trace, slots, scaling, start_seconds).run()


class _Ours(Replay):
    def __init__(self, trace: Trace, slots: int, scaling: Scaling, start_seconds: float) -> None:
        super().__init__(trace, slots, scaling.max_replicas, start_seconds)
        self._scaling = scaling
        self._past = ScalingHistory()
        self._marked: frozenset[str] = frozenset()
        self._next = 0.0
        self._woken = False

    def begin(self) -> None:
        self.at(0.0, "tick")

    def decide(self, now: float, what: str) -> None:
        if what == "tick":
            self.at(now + TICK_SECONDS, "tick")
        elif what == "arrive":
            if self._woken:
                return
            if now < self._next:
                self._woken = True
                self.at(self._next, "woken")
                return
        else:
            self._woken = False
        self._next = now + PAUSE_SECONDS
        self._scale(now)

    def _scale(self, now: float) -> None:
        running = sum(len(pod.running) for pod in self.pods)
        when, current = _EPOCH + timedelta(seconds=now), len(self.pods)
        demand = Demand(ready=len(self.queue), leased=running)
        decision = decide(self._scaling, self.slots, current, demand, self._past, when)
        self._past = decision.history
        if decision.replicas > current:
            for pod in self.pods:
                pod.serving = True
            self.add(now, decision.replicas - current)
            return
        known = {pod.name: pod for pod in self.pods}
        workers = self._workers(now)
        parting = plan_scale_down([_seen(pod, now) for pod in self.pods], workers, current - decision.replicas)
        for name in parting.resume:
            known[name].serving = True
        for name in parting.stop:
            known[name].serving = False
        # Marked at one decision, removed at the next: the ReplicaSet's controller has seen the mark by then.
        for name in self._marked.intersection(parting.remove):
            self.remove(now, known[name])
        self._marked = frozenset(parting.remove)

    def _workers(self, now: float) -> Workers:
        at_ms = int(now * 1000)
        reports = {
            pod.name: WorkerReport(
                namespace="default",
                queues=("q",),
                slots=self.slots,
                busy=len(pod.running),
                serving=pod.serving,
                at_ms=at_ms,
            )
            for pod in self.pods
            if pod.ready_at <= now
        }
        return Workers(at_ms, reports, {pod.name for pod in self.pods if not pod.serving})


def _seen(pod: SimulatedPod, now: float) -> Pod:
    created = _EPOCH + timedelta(seconds=pod.created_at)
    return Pod(pod.name, pod.name, created, started=pod.ready_at <= now)
