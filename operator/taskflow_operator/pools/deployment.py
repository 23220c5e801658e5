"""Builds the Deployment of a WorkerPool. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from taskflow_core.domain import naming
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.errors import Invalid

GRACE_SECONDS = 60
SCRATCH = "taskflow-scratch"
DRAIN_MARGIN_SECONDS = 10
"""What a worker needs after its drain time to hand back attempts and exit, within the grace period of the pod."""
READINESS_PROBE = {
    "exec": {"command": ["python", "-m", "taskflow_worker.readiness"]},
    "periodSeconds": 5,
    # A Python that starts on a node without free CPU takes longer than the default of 1 s.
    "timeoutSeconds": 5,
    "failureThreshold": 3,
}
"""A worker is ready while it takes messages; what the program prints is in the pod's Event `Unhealthy`."""
RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}}
"""Without requests a pod is BestEffort: the first to be evicted or killed when its node has no memory left."""
LAST_WORDS = {"terminationMessagePolicy": "FallbackToLogsOnError"}
"""A container that fails leaves the end of its log in the pod's status."""

NO_ENV: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T")


def deployment(
    pool: WorkerPool, replicas: int, *, image: str, lease_seconds: int, env: Mapping[str, str] = NO_ENV
) -> dict[str, Any]:
    """The pool's Deployment, for server-side apply. Arguments as of `pod_template`.

    Raises:
        Invalid: as `pod_template` does.
    """
    template = pod_template(pool, image=image, lease_seconds=lease_seconds, env=env)
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


def pod_template(
    pool: WorkerPool, *, image: str, lease_seconds: int, env: Mapping[str, str] = NO_ENV
) -> dict[str, Any]:
    """Pod template of the pool, without the pool's labels: its own template over defaults of restricted Pod Security.

    Args:
        pool: whose template it is.
        image: of the worker, unless the pool names one.
        lease_seconds: passed to the worker.
        env: variables of the worker that the pool does not set itself.

    Raises:
        Invalid: a field of the template that has to be read is no PodSpec field; the API server validates the rest.
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
    worker = _worker_container(pool, own, image=image, lease_seconds=lease_seconds, grace_seconds=grace, defaults=env)
    initial = _objects(pod, "initContainers", "spec.template.spec")
    return {
        "metadata": {
            "labels": dict(metadata.get("labels") or {}),
            # With another login the pods are replaced, as with any change of their template.
            "annotations": dict(metadata.get("annotations") or {})
            | ({naming.ANNOTATION_LOGIN: pool.login} if pool.login else {}),
        },
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            **pod,
            # User code runs in the pod, so it gets no credential for the API server.
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": grace,
            "volumes": [{"name": SCRATCH, "emptyDir": {}}, *_objects(pod, "volumes", "spec.template.spec")],
            "containers": [LAST_WORDS | each for each in (worker, *others)],
            **({"initContainers": [LAST_WORDS | each for each in initial]} if initial else {}),
        },
    }


def _worker_container(
    pool: WorkerPool,
    own: dict[str, Any],
    *,
    image: str,
    lease_seconds: int,
    grace_seconds: int,
    defaults: Mapping[str, str],
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
    set_by_pool = {variable.get("name") for variable in theirs}
    ours += [{"name": name, "value": value} for name, value in defaults.items() if name not in set_by_pool]
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
        "resources": RESOURCES,
        "readinessProbe": READINESS_PROBE,
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
