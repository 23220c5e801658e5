"""What a WorkerPool wants, as a Deployment, and what the Deployment says of it, as a status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import Field

from taskflow_core.domain import naming
from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.task import Condition, Model
from taskflow_core.errors import Invalid

GRACE_SECONDS = 60
SCRATCH = "taskflow-scratch"
DRAIN_MARGIN_SECONDS = 10
"""What a worker needs after its drain time to hand back and exit, within the pod's grace period."""

_MAX_POD_NAME, _RANDOM_CHARS = 63, 5
"""Kubernetes cuts a generated name so that it fits with what is random at its end (k8s.io/apiserver/pkg/storage/names)."""

T = TypeVar("T")

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"


class PoolSpec(Model):
    """What the user wants of a pool."""

    queues: tuple[str, ...]
    concurrency: int = 1
    replicas: int = 1
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
    def selector(self) -> dict[str, str]:
        """Labels that all pods of the pool have and no others."""
        return {naming.LABEL_MANAGED_BY: naming.MANAGED_BY, naming.LABEL_POOL: self.name}


@dataclass(frozen=True)
class PoolSize:
    """What a pool serves, and with how many workers."""

    queues: frozenset[str]
    concurrency: int
    desired: int
    ready: int

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PoolSize:
        """Read a Kubernetes object, of which nothing but the queues has to be there."""
        spec, status = body["spec"], body.get("status") or {}
        defaults = PoolSpec.model_fields
        return cls(
            queues=frozenset(spec["queues"]),
            concurrency=spec.get("concurrency", defaults["concurrency"].default),
            desired=spec.get("replicas", defaults["replicas"].default),
            ready=status.get("readyReplicas", 0),
        )


def deployment(pool: Pool, *, image: str, lease_seconds: int) -> dict[str, Any]:
    """The pool's Deployment, for server-side apply: what the template says, over defaults of restricted Pod Security.

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
        "spec": {
            "replicas": pool.spec.replicas,
            "selector": {"matchLabels": pool.selector},
            "template": {
                "metadata": {
                    "labels": {**(metadata.get("labels") or {}), **pool.selector},
                    "annotations": dict(metadata.get("annotations") or {}),
                },
                "spec": {
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    **pod,
                    # No pod of a pool speaks to the API server: user code runs in it.
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": grace,
                    "volumes": [{"name": SCRATCH, "emptyDir": {}}, *(pod.get("volumes") or ())],
                    "containers": [worker, *others],
                },
            },
        },
    }


def _worker_container(
    pool: Pool, own: dict[str, Any], *, image: str, lease_seconds: int, grace_seconds: int
) -> dict[str, Any]:
    ours: list[dict[str, Any]] = [
        {"name": "TASKFLOW_WORKER_NAMESPACE", "value": pool.namespace},
        {"name": "TASKFLOW_WORKER_QUEUES", "value": ",".join(sorted(pool.spec.queues))},
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
        "envFrom": [secret, *(own.get("envFrom") or ())],
        # The root file system is read-only; inputs and outputs of a running attempt lie here.
        "volumeMounts": [{"name": SCRATCH, "mountPath": "/tmp"}, *(own.get("volumeMounts") or ())],  # noqa: S108
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


def pool_of_worker(worker: str, pools: Iterable[str]) -> str | None:
    """The pool of these that a worker belongs to: it is named after its pod, and that after Deployment and ReplicaSet."""
    pod = worker.partition(":")[0]
    if len(pod) < _MAX_POD_NAME:
        return next((pool for pool in pools if deployment_name(pool) == pod.rsplit("-", 2)[0]), None)
    cut = pod[:-_RANDOM_CHARS]
    fits = [pool for pool in pools if f"{deployment_name(pool)}-"[: len(cut)] == cut[: len(deployment_name(pool)) + 1]]
    return max(fits, key=len, default=None)


def pool_status(pool: Pool, found: Mapping[str, Any] | None, refusal: str | None, now: datetime) -> dict[str, Any]:
    """The pool's status by the rules of kstatus: Ready, Reconciling while it is on its way, Stalled when it can't get there.

    Args:
        pool: what is wanted.
        found: its Deployment, if there is one.
        refusal: why the API server refused the Deployment, if it did.
        now: time of any transition.
    """
    state = (found or {}).get("status") or {}
    ready, replicas = state.get("readyReplicas", 0), state.get("replicas", 0)
    wanted = pool.spec.replicas
    seen = state.get("observedGeneration", 0) >= ((found or {}).get("metadata") or {}).get("generation", 1)
    settled = seen and replicas == wanted == ready and state.get("updatedReplicas", 0) == wanted
    stuck = refusal or _stuck(state.get("conditions") or ())
    if stuck:
        reason, message = ("DeploymentRefused" if refusal else "DeploymentStuck"), stuck
    elif settled:
        reason, message = "WorkersReady", f"{ready} of {wanted} workers are ready"
    else:
        reason, message = "WorkersStarting", f"{ready} of {wanted} workers are ready"
    conditions = pool.conditions
    for kind, holds in (
        (READY, settled and not stuck),
        (RECONCILING, not settled and not stuck),
        (STALLED, bool(stuck)),
    ):
        conditions = set_condition(
            conditions, kind, status=holds, reason=reason, message=message, generation=pool.generation, now=now
        )
    return {
        "observedGeneration": pool.generation,
        "replicas": replicas,
        "readyReplicas": ready,
        "selector": ",".join(f"{key}={value}" for key, value in sorted(pool.selector.items())),
        "conditions": [c.model_dump(mode="json", by_alias=True) for c in conditions],
    }


def _stuck(conditions: Any) -> str | None:
    for condition in conditions:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message"))
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message"))
    return None
