"""The WorkerPool resource, field for field as the CRD has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from taskflow_core.domain import naming
from taskflow_core.domain.resource import Condition, Model
from taskflow_core.domain.slots import PoolKind


class Scaling(Model):
    """`spec.scaling` of a WorkerPool."""

    min_replicas: int = 0
    max_replicas: int
    tasks_per_replica: int | None = None
    """Slots of demand that one pod is for; its concurrency if not said."""
    scale_down_delay_seconds: int = 60
    idle_seconds_to_zero: int = 300
    scale_up_limit: int | None = None
    """Pods that one decision may add."""


class WorkerPoolSpec(Model):
    """What the user wants of a pool."""

    queues: tuple[str, ...]
    pool: PoolKind = PoolKind.PREFORK
    concurrency: int = 1
    replicas: int | None = None
    scaling: Scaling | None = None
    paused: bool = False
    drain: bool = False
    template: dict[str, Any] = Field(default_factory=dict)


class WorkerPool(Model):
    """A WorkerPool resource."""

    uid: str
    namespace: str
    name: str
    generation: int
    spec: WorkerPoolSpec
    login: str = ""
    """Since when its workers are to have another login; empty: they never had one before."""
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> WorkerPool:
        """Read a Kubernetes object.

        Raises:
            pydantic.ValidationError: it is not a WorkerPool as the CRD admits it.
        """
        meta = body["metadata"]
        return cls(
            uid=meta["uid"],
            namespace=meta["namespace"],
            name=meta["name"],
            generation=meta.get("generation", 1),
            spec=WorkerPoolSpec.model_validate(dict(body["spec"])),
            login=(meta.get("annotations") or {}).get(naming.ANNOTATION_LOGIN, ""),
            conditions=tuple((body.get("status") or {}).get("conditions", ())),
        )

    @property
    def fixed_replicas(self) -> int | None:
        """Pods that the specification asks for; None if the scaler decides, and brings their number down with care."""
        if self.spec.drain or self.spec.scaling is not None:
            return None
        return 1 if self.spec.replicas is None else self.spec.replicas

    @property
    def selector(self) -> dict[str, str]:
        """Labels that all pods of the pool have and no others."""
        return {naming.LABEL_MANAGED_BY: naming.MANAGED_BY, naming.LABEL_POOL: self.name}

    @property
    def label_selector(self) -> str:
        """`selector` as the API server takes it."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.selector.items()))
