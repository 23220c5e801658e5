"""What a WorkerPool wants, as a Deployment, and what the Deployment says of it, as a status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import Field

from taskflow_core.domain import naming
from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.resource import Condition, Model
from taskflow_core.domain.slots import PoolKind
from taskflow_core.errors import Invalid
from taskflow_operator.pools.scaling import Demand, Scaling

GRACE_SECONDS = 60
SCRATCH = "taskflow-scratch"
DRAIN_MARGIN_SECONDS = 10
"""What a worker needs after its drain time to hand back and exit, within the pod's grace period."""

T = TypeVar("T")

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"


class PoolSpec(Model):
    """What the user wants of a pool."""

    queues: tuple[str, ...]
    pool: PoolKind = PoolKind.PREFORK
    concurrency: int = 1
    replicas: int | None = None
    scaling: Scaling | None = None
    paused: bool = False
    drain: bool = False
    template: dict[str, Any] = Field(default_factory=dict)


class Pool(Model):
    """A WorkerPool resource."""

    uid: str
    namespace: str
    name: str
    generation: int
    spec: PoolSpec
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Pool:
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
            spec=PoolSpec.model_validate(dict(body["spec"])),
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


def deployment(pool: Pool, replicas: int, *, image: str, lease_seconds: int) -> dict[str, Any]:
    """The pool's Deployment, for server-side apply.

    Raises:
        Invalid: as `pod_template` does.
    """
    template = pod_template(pool, image=image, lease_seconds=lease_seconds)
    template["metadata"]["labels"] |= pool.selector
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(pool.name),
            "namespace": pool.namespace,
            "labels": pool.selector,
            "ownerReferences": [
                {
                    "apiVersion": naming.API_VERSION,
                    "kind": "WorkerPool",
                    "name": pool.name,
                    "uid": pool.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": pool.selector}, "template": template},
    }


def pod_template(pool: Pool, *, image: str, lease_seconds: int) -> dict[str, Any]:
    """Pods of the pool, but for its own labels: what its template says, over defaults of restricted Pod Security.

    Raises:
        Invalid: the template is not a PodSpec where we have to read it; the rest the API server judges.
    """
    template = pool.spec.template
    metadata = template.get("metadata") or {}
    pod = _checked(template.get("spec") or {}, dict, "spec.template.spec")
    grace = _checked(
        pod.get("terminationGracePeriodSeconds", GRACE_SECONDS), int, "spec.template.spec.terminationGracePeriodSeconds"
    )
    containers = _objects(pod, "containers", "spec.template.spec")
    own = next((c for c in containers if c.get("name") == naming.WORKER_CONTAINER), {})
    others = [c for c in containers if c.get("name") != naming.WORKER_CONTAINER]
    worker = _worker_container(pool, own, image=image, lease_seconds=lease_seconds, grace_seconds=grace)
    return {
        "metadata": {
            "labels": dict(metadata.get("labels") or {}),
            "annotations": dict(metadata.get("annotations") or {}),
        },
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            **pod,
            # No pod of a pool speaks to the API server: user code runs in it.
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": grace,
            "volumes": [{"name": SCRATCH, "emptyDir": {}}, *_objects(pod, "volumes", "spec.template.spec")],
            "containers": [worker, *others],
        },
    }


def _worker_container(
    pool: Pool, own: dict[str, Any], *, image: str, lease_seconds: int, grace_seconds: int
) -> dict[str, Any]:
    ours: list[dict[str, Any]] = [
        {"name": "TASKFLOW_WORKER_NAMESPACE", "value": pool.namespace},
        {"name": "TASKFLOW_WORKER_POOL", "value": pool.name},
        {"name": "TASKFLOW_WORKER_QUEUES", "value": ",".join(sorted(pool.spec.queues))},
        {"name": "TASKFLOW_WORKER_POOL_KIND", "value": pool.spec.pool.value},
        {"name": "TASKFLOW_WORKER_CONCURRENCY", "value": str(pool.spec.concurrency)},
        {"name": "TASKFLOW_WORKER_LEASE_SECONDS", "value": str(lease_seconds)},
        {"name": "TASKFLOW_WORKER_DRAIN_SECONDS", "value": str(max(grace_seconds - DRAIN_MARGIN_SECONDS, 0))},
        {"name": "TASKFLOW_WORKER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    fixed = {variable["name"] for variable in ours}
    theirs = [variable for variable in _objects(own, "env", "container worker") if variable.get("name") not in fixed]
    secret = {"secretRef": {"name": naming.WORKER_SECRET}}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    return {
        "image": image,
        "command": ["python", "-m", "taskflow_worker"],
        "securityContext": security,
        **own,
        "name": naming.WORKER_CONTAINER,
        "env": [*ours, *theirs],
        "envFrom": [secret, *_objects(own, "envFrom", "container worker")],
        # The root file system is read-only; inputs and outputs of a running attempt lie here.
        "volumeMounts": [{"name": SCRATCH, "mountPath": "/tmp"}, *_objects(own, "volumeMounts", "container worker")],  # noqa: S108
    }


def _checked(value: Any, kind: type[T], where: str) -> T:
    if not isinstance(value, kind):
        raise Invalid(f"{where}: expected {kind.__name__}, found {type(value).__name__}")
    return value


def _objects(holder: Mapping[str, Any], field: str, where: str) -> list[dict[str, Any]]:
    found = _checked(holder.get(field) or [], list, f"{where}: {field}")
    return [dict(_checked(each, dict, f"{where}: {field}")) for each in found]


def deployment_name(pool: str) -> str:
    """Name of a pool's Deployment."""
    return f"{pool}-workers"


@dataclass(frozen=True)
class PoolFigures:
    """What the workers and queues of a pool are like at the moment."""

    demand: Demand = field(default_factory=Demand)
    depths: Mapping[str, int] = field(default_factory=dict)
    """Messages in the broker, by queue."""
    slots: int = 0
    busy: int = 0


@dataclass(frozen=True)
class LastDecision:
    """The last change of the number of pods by scaling."""

    time: datetime
    replicas: int
    reason: str
    message: str


@dataclass(frozen=True)
class PoolFacts:
    """All that a pool's status is made of, besides what is wanted."""

    deployment: Mapping[str, Any] | None = None
    """Its Deployment, if there is one."""
    refusal: str | None = None
    """Why the API server refused the Deployment."""
    trouble: str | None = None
    """Why pods of it cannot start."""
    desired: int | None = None
    """Pods that scaling wants."""
    figures: PoolFigures = field(default_factory=PoolFigures)
    decision: LastDecision | None = None


def pool_status(pool: Pool, found: PoolFacts, now: datetime) -> dict[str, Any]:
    """The pool's status by the rules of kstatus: Ready, Reconciling while it is on its way, Stalled when it can't get there.

    Args:
        pool: what is wanted.
        found: what there is.
        now: time of any transition.
    """
    state = (found.deployment or {}).get("status") or {}
    ready, replicas = state.get("readyReplicas", 0), state.get("replicas", 0)
    fixed = pool.fixed_replicas
    wanted = fixed if fixed is not None else found.desired if found.desired is not None else replicas
    seen = state.get("observedGeneration", 0) >= ((found.deployment or {}).get("metadata") or {}).get("generation", 1)
    settled = seen and replicas == wanted == ready and state.get("updatedReplicas", 0) == wanted
    stuck = found.refusal or found.trouble or _stuck(state.get("conditions") or ())
    reason, message = _reason(pool, found, stuck, f"{ready} of {wanted} workers are ready", settled=settled)
    conditions = pool.conditions
    for kind, holds in (
        (READY, settled and not stuck),
        (RECONCILING, not settled and not stuck),
        (STALLED, bool(stuck)),
    ):
        conditions = set_condition(
            conditions, kind, status=holds, reason=reason, message=message, generation=pool.generation, now=now
        )
    figures, decision = found.figures, found.decision
    status: dict[str, Any] = {
        "observedGeneration": pool.generation,
        "replicas": replicas,
        "readyReplicas": ready,
        "desiredReplicas": wanted,
        "demand": figures.demand.slots,
        "queued": figures.demand.ready,
        "queueDepths": dict(figures.depths),
        "oldestWaitingSeconds": int(figures.demand.oldest_seconds),
        "slots": figures.slots,
        "busySlots": figures.busy,
        "selector": pool.label_selector,
        "conditions": [c.model_dump(mode="json", by_alias=True) for c in conditions],
    }
    if decision is not None:
        status["lastDecision"] = {
            "time": decision.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "replicas": decision.replicas,
            "reason": decision.reason,
            "message": decision.message,
        }
    return status


def _reason(pool: Pool, found: PoolFacts, stuck: str | None, words: str, *, settled: bool) -> tuple[str, str]:
    if stuck:
        why = "DeploymentRefused" if found.refusal else "PodsFailing" if found.trouble else "DeploymentStuck"
        return why, stuck
    if pool.spec.drain:
        return "Draining", f"{words}; the pool drains, so it takes nothing new"
    if pool.spec.paused:
        return "Paused", f"{words}; the pool is paused, so it takes nothing new"
    return ("WorkersReady" if settled else "WorkersStarting"), words


def _stuck(conditions: Any) -> str | None:
    for condition in conditions:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message"))
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message"))
    return None
