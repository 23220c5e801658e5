"""The view of a WorkerPool, and the only place in the API that knows the fields of the resource."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from taskflow_core.domain.resource import Condition, Model

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


class Scaling(Model):
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
    scaling: Scaling | None
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
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    conditions = status.get("conditions") or []
    ready: dict[str, Any] = next((each for each in conditions if each["type"] == "Ready"), {})
    scaling = spec.get("scaling")
    values = {name: status.get(name) for name in _STATUS_FIELDS}
    return PoolView.model_validate(
        {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "createdAt": meta["creationTimestamp"],
            "queues": spec["queues"],
            "paused": bool(spec.get("paused")),
            "drain": bool(spec.get("drain")),
            "concurrency": spec.get("concurrency", 1),
            "replicas": None if scaling else spec.get("replicas", 1),
            "scaling": scaling,
            "queueDepths": status.get("queueDepths") or {},
            "conditions": conditions,
            "reason": ready.get("reason", ""),
            "message": ready.get("message", ""),
            **values,
        }
    )
