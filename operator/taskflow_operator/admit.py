from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_JSON_LEVELS, MAX_PAYLOAD_BYTES, Task, payload_bytes


class Pools(Protocol):
    """Which queues are served."""

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""


@dataclass(frozen=True)
class Admitted:
    """Queue it now."""


@dataclass(frozen=True)
class Wait:
    """Not now."""

    reason: str
    message: str
    until: datetime | None
    """When to look again; None when something else has to happen."""


@dataclass(frozen=True)
class Refuse:
    """Never."""

    reason: Reason
    message: str


def admit(task: Task, pools: Pools, now: datetime) -> Admitted | Wait | Refuse:
    """Whether the Task's current attempt may be queued."""
    if task.payload_too_deep:
        return Refuse(
            Reason.PAYLOAD_TOO_DEEP,
            f"args or kwargs are nested deeper than {MAX_JSON_LEVELS} levels; store the data as an object and name it in "
            "spec.inputs",
        )
    size = payload_bytes(task.spec.args, task.spec.kwargs)
    if size > MAX_PAYLOAD_BYTES:
        return Refuse(
            Reason.PAYLOAD_TOO_LARGE,
            f"args and kwargs are {size} bytes of JSON, at most {MAX_PAYLOAD_BYTES} are allowed; "
            "store the data as an object and name it in spec.inputs",
        )
    due = task.status.next_attempt_time
    if due is not None and due > now:
        return Wait(task.status.reason, task.status.message, due)
    if (missing := no_pool(task, pools)) is not None:
        return Wait(Reason.NO_WORKER_POOL, missing, None)
    return Admitted()


def no_pool(task: Task, pools: Pools) -> str | None:
    """Why nobody will take the Task; None if somebody may."""
    served = pools.queues(task.namespace)
    if task.spec.queue in served:
        return None
    others = "queues served there: " + ", ".join(sorted(served)) if served else "there is no WorkerPool"
    return f"no WorkerPool in namespace {task.namespace!r} serves queue {task.spec.queue!r}; {others}"
