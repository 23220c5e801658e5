"""The view of a WorkerPool."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from taskflow_core.domain.resource import Condition, Model
from taskflow_core.domain.workerpool import WorkerPool

_STATUS_FIELDS = (
    "desiredReplicas",
    "readyReplicas",
    "slots",
    "busySlots",
    "demand",
    "queued",
    "oldestWaitingSeconds",
    "lastDecision",
)


class ScalingView(Model):
    """The bounds of autoscaling."""

    min_replicas: int = 0
    max_replicas: int


class DecisionView(Model):
    """The last scaling decision."""

    time: datetime
    replicas: int
    reason: str
    message: str


class PoolView(Model):
    """A WorkerPool, its spec and its status. The numbers are from the latest status, at most 5 s old."""

    name: str
    namespace: str
    uid: str
    created_at: datetime
    queues: list[str]
    paused: bool
    drain: bool
    concurrency: int
    """Slots of each pod."""
    replicas: int | None
    """The requested replicas; null with autoscaling."""
    scaling: ScalingView | None
    desired_replicas: int | None
    """This field and those below are null until the operator has handled the pool."""
    ready_replicas: int | None
    slots: int | None
    busy_slots: int | None
    demand: int | None
    """Queued and running work, in slots."""
    queued: int | None
    queue_depths: dict[str, int]
    """Messages in the broker by queue."""
    oldest_waiting_seconds: int | None
    last_decision: DecisionView | None
    conditions: list[Condition]
    reason: str
    """The reason of the Ready condition."""
    message: str


def pool_view(body: dict[str, Any]) -> PoolView:
    """The view of a WorkerPool resource."""
    pool, status = WorkerPool.from_object(body), body.get("status") or {}
    spec, scaling = pool.spec, pool.spec.scaling
    ready = next((condition for condition in pool.conditions if condition.type == "Ready"), None)
    return PoolView.model_validate(
        {
            "name": pool.name,
            "namespace": pool.namespace,
            "uid": pool.uid,
            "createdAt": body["metadata"]["creationTimestamp"],
            "queues": spec.queues,
            "paused": spec.paused,
            "drain": spec.drain,
            "concurrency": spec.concurrency,
            "replicas": None if scaling else (1 if spec.replicas is None else spec.replicas),
            "scaling": None if scaling is None else scaling.model_dump(include={"min_replicas", "max_replicas"}),
            "queueDepths": status.get("queueDepths") or {},
            "conditions": pool.conditions,
            "reason": ready.reason if ready else "",
            "message": ready.message if ready else "",
            **{name: status.get(name) for name in _STATUS_FIELDS},
        }
    )
