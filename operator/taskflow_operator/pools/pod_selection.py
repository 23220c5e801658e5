"""Which pods of a pool to remove when fewer are wanted, and which workers to replace. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from taskflow_core.ledger.presence import WorkerReport
from taskflow_operator.runtime.pod import Pod

FRESH_SECONDS = 10.0
"""An older report is ignored; workers report every second."""
SILENT_SECONDS = 60.0
"""A worker that ran and did not report for this long, or stopped being ready that long ago, is replaced."""
DEAF_SECONDS = 60.0
"""A worker that took nothing for this long, while work waited for it all the time, is replaced."""


@dataclass(frozen=True)
class Workers:
    """What the workers of a pool report, and what they were asked to do."""

    now_ms: int
    """Redis' clock, by which reports are dated."""
    reports: Mapping[str, WorkerReport] = field(default_factory=dict)
    """By the name of the pod."""
    asked: AbstractSet[str] = frozenset()
    """Names of those that were asked to stop their intake."""

    def report(self, name: str) -> WorkerReport | None:
        """Its current report; None if it is silent."""
        found = self.reports.get(name)
        return found if found is not None and self.now_ms - found.at_ms <= FRESH_SECONDS * 1000 else None


@dataclass(frozen=True)
class ScaleDown:
    """How to remove a number of pods without losing work."""

    remove: tuple[str, ...] = ()
    """Pods that hold nothing and take nothing."""
    stop: tuple[str, ...] = ()
    """Pods to ask to stop their intake."""
    resume: tuple[str, ...] = ()
    """Pods that were asked, and stay."""


def plan_scale_down(pods: Sequence[Pod], workers: Workers, count: int, *, busy_too: bool = False) -> ScaleDown:
    """Which pods to remove, of those that are not terminating already.

    Only idle pods are removed: first those that cannot start, then those that reported that they stopped their intake,
    then the youngest. A pod that does not report stays: what it holds is unknown.

    Args:
        pods: all pods of the pool.
        workers: their reports.
        count: how many fewer are wanted.
        busy_too: busy workers stop their intake too, and are removed when they have finished what they hold.
    """
    present = [pod for pod in pods if not pod.terminating]
    removable = [pod.name for pod in present if not pod.started and pod.name not in workers.reports]
    stopping: list[str] = []
    idle: list[Pod] = []
    for pod in present:
        report = workers.report(pod.name)
        if report is None:
            continue
        if pod.name in workers.asked:
            (stopping if report.serving or report.busy else removable).append(pod.name)
        elif report.busy == 0 or busy_too:
            idle.append(pod)
    remove = removable[:count]
    waiting = stopping[: count - len(remove)]
    idle.sort(key=lambda pod: (pod.created, pod.name), reverse=True)
    stop = [pod.name for pod in idle[: count - len(remove) - len(waiting)]]
    going = {*remove, *waiting}
    names = {pod.name for pod in present}
    resume = sorted(name for name in workers.asked if name in names and name not in going)
    return ScaleDown(tuple(remove), tuple(stop), tuple(resume))


class Fault(StrEnum):
    """Why a worker is replaced."""

    SILENT = "silent"
    DEAF = "deaf"

    @property
    def explained(self) -> str:
        """What the worker did wrong, for people."""
        if self is Fault.SILENT:
            return f"did not report for {SILENT_SECONDS:.0f} s"
        return f"had free slots and took nothing for {DEAF_SECONDS:.0f} s, while work waited for it"


def find_faulty(pods: Sequence[Pod], workers: Workers, waiting_seconds: float, now: datetime) -> dict[str, Fault]:
    """Workers that run and do no work, by the name of the pod.

    Args:
        pods: all pods of the pool.
        workers: their reports.
        waiting_seconds: for how long work has waited for any of them without a break.
        now: by the clock that dates pods.
    """
    found: dict[str, Fault] = {}
    for pod in pods:
        age = (now - pod.created).total_seconds()
        if pod.terminating or not pod.started or pod.name in workers.asked:
            continue
        report = workers.reports.get(pod.name)
        if report is None:
            # One that was never ready may still be starting, and if it cannot start, its container ends by itself.
            if pod.fell_mute is not None and (now - pod.fell_mute).total_seconds() > SILENT_SECONDS:
                found[pod.name] = Fault.SILENT
            continue
        if workers.now_ms - report.at_ms > SILENT_SECONDS * 1000:
            found[pod.name] = Fault.SILENT
            continue
        idle_seconds = min((workers.now_ms - report.claimed_ms) / 1000 if report.claimed_ms else age, age)
        if report.busy < report.slots and min(idle_seconds, waiting_seconds) > DEAF_SECONDS:
            found[pod.name] = Fault.DEAF
    return found
