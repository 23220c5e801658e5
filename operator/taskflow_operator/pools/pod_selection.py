"""The pods of a pool, and which of them go when fewer are wanted: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from taskflow_core.domain.resource import Model
from taskflow_core.ledger.presence import WorkerReport

FRESH_SECONDS = 10.0
"""A report that is older says nothing any more; one comes every second."""
SILENT_SECONDS = 60.0
"""A worker that ran and said nothing for so long is replaced."""
DEAF_SECONDS = 60.0
"""A worker that took nothing for so long, while something waited for it all that time, is replaced."""
_TROUBLE = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


class Metadata(Model):
    """What is read of a pod's metadata."""

    name: str
    uid: str
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None


@dataclass(frozen=True)
class Pod:
    """A pod of a pool."""

    name: str
    uid: str
    created: datetime
    leaving: bool = False
    """It was deleted and is ending."""
    started: bool = False
    """Its containers run."""
    trouble: str | None = None
    """Why it cannot start, in words."""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Pod:
        """Read a Kubernetes object.

        Raises:
            pydantic.ValidationError: it is no pod.
        """
        meta = Metadata.model_validate(body["metadata"])
        status = body.get("status") or {}
        return cls(
            name=meta.name,
            uid=meta.uid,
            created=meta.creation_timestamp,
            leaving=meta.deletion_timestamp is not None,
            started=status.get("phase") == "Running",
            trouble=_trouble(status),
        )


def _trouble(status: Mapping[str, Any]) -> str | None:
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _TROUBLE:
            said = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{waiting['reason']}{said}"
    return None


@dataclass(frozen=True)
class Workers:
    """What the workers of a pool say of themselves, and what they were asked for."""

    now_ms: int
    """Redis' clock, by which reports are dated."""
    reports: Mapping[str, WorkerReport] = field(default_factory=dict)
    """By the name of the pod."""
    asked: AbstractSet[str] = frozenset()
    """Names of those that were asked to take nothing more."""

    def report(self, name: str) -> WorkerReport | None:
        """What it says now; None if it is silent."""
        found = self.reports.get(name)
        return found if found is not None and self.now_ms - found.at_ms <= FRESH_SECONDS * 1000 else None


@dataclass(frozen=True)
class ScaleDown:
    """What to do so that a number of pods can go without work being lost."""

    go: tuple[str, ...] = ()
    """They hold nothing and take nothing: remove them."""
    stop: tuple[str, ...] = ()
    """Ask them to take nothing more."""
    resume: tuple[str, ...] = ()
    """They were asked, and are to stay."""


def plan_scale_down(pods: Sequence[Pod], workers: Workers, count: int, *, busy_too: bool = False) -> ScaleDown:
    """Which pods go, of those that are not leaving already.

    Only idle ones: first those that cannot start, then those that said that they take nothing more, then the youngest. A pod that
    has said nothing yet, or says nothing any more, stays: what it holds is not known.

    Args:
        pods: all of the pool.
        workers: what they say.
        count: how many fewer are wanted.
        busy_too: busy ones stop as well, and go when they have ended what they hold.
    """
    here = [pod for pod in pods if not pod.leaving]
    gone = [pod.name for pod in here if not pod.started and pod.name not in workers.reports]
    stopping: list[str] = []
    idle: list[Pod] = []
    for pod in here:
        report = workers.report(pod.name)
        if report is None:
            continue
        if pod.name in workers.asked:
            (stopping if report.serving or report.busy else gone).append(pod.name)
        elif report.busy == 0 or busy_too:
            idle.append(pod)
    go = gone[:count]
    waiting = stopping[: count - len(go)]
    idle.sort(key=lambda pod: (pod.created, pod.name), reverse=True)
    stop = [pod.name for pod in idle[: count - len(go) - len(waiting)]]
    kept = {*go, *waiting}
    present = {pod.name for pod in here}
    resume = sorted(name for name in workers.asked if name in present and name not in kept)
    return ScaleDown(tuple(go), tuple(stop), tuple(resume))


class Fault(StrEnum):
    """Why a worker is replaced."""

    SILENT = "silent"
    DEAF = "deaf"


def faulty(pods: Sequence[Pod], workers: Workers, waiting_seconds: float, now: datetime) -> dict[str, Fault]:
    """Workers that are alive and of no use, by the name of the pod.

    Args:
        pods: all of the pool.
        workers: what they say.
        waiting_seconds: for how long something has waited for any of them without a break.
        now: by the clock that pods are dated by.
    """
    found: dict[str, Fault] = {}
    for pod in pods:
        age = (now - pod.created).total_seconds()
        if pod.leaving or not pod.started or pod.name in workers.asked:
            continue
        said = workers.reports.get(pod.name)
        if said is None:
            # It never said anything: it may be starting still, and if it cannot, its container ends by itself.
            continue
        if workers.now_ms - said.at_ms > SILENT_SECONDS * 1000:
            found[pod.name] = Fault.SILENT
            continue
        idle_seconds = min((workers.now_ms - said.claimed_ms) / 1000 if said.claimed_ms else age, age)
        if said.busy < said.slots and min(idle_seconds, waiting_seconds) > DEAF_SECONDS:
            found[pod.name] = Fault.DEAF
    return found
