"""Jobs of Tasks that run in pods of their own: what they are like, and what there is to say of them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.task import Task
from taskflow_core.errors import Invalid
from taskflow_operator.pools.pod_selection import Pod

LINGER_SECONDS = 30
"""How long a Job stays that ended: long enough to look at its pod."""
AGAIN_SECONDS = 15.0
"""After a Job that ended without having taken its attempt, or was refused, until the next."""
POD_SECONDS = 10.0
"""A Job that has no pod after this time does not get one."""
_NAME_CHARS = 40
"""Of the Task's name in its Job's, which pods and labels take up: 63 in all."""
MANAGED = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
SELECTOR = f"{naming.LABEL_MANAGED_BY}={naming.MANAGED_BY},{naming.LABEL_TASK_UID}"


def job_name(task: Task) -> str:
    """Name of the Job of the current attempt: no two Tasks share it, even if one has the other's name later."""
    digest = hashlib.sha256(task.uid.encode()).hexdigest()[:8]
    return f"{task.name[:_NAME_CHARS].replace('.', '-').rstrip('-')}-{digest}-{task.status.attempt}"


def job(task: Task, template: Mapping[str, Any]) -> dict[str, Any]:
    """The Job of the Task's current attempt.

    Args:
        task: goes with it: when it is deleted, so is the Job.
        template: pods of the pool that it belongs to; with a container `worker`.

    Raises:
        Invalid: the container's arguments are no list.
    """
    labels = {**MANAGED, naming.LABEL_TASK_UID: task.uid, naming.LABEL_ATTEMPT: str(task.status.attempt)}
    metadata, spec = template["metadata"], template["spec"]
    # Without those of the pool: nothing must count or serve this pod as one of its workers.
    own = {key: value for key, value in metadata["labels"].items() if key != naming.LABEL_POOL}
    containers = [
        _once(each, task) if each.get("name") == naming.WORKER_CONTAINER else each for each in spec["containers"]
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(task),
            "namespace": task.namespace,
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": naming.API_VERSION,
                    "kind": "Task",
                    "name": task.name,
                    "uid": task.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            # Another attempt is another Job: the ledger decides on it, and not Kubernetes.
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": LINGER_SECONDS,
            "template": {
                "metadata": {**metadata, "labels": own | labels},
                "spec": {**spec, "restartPolicy": "Never", "containers": containers},
            },
        },
    }


def _once(container: Mapping[str, Any], task: Task) -> dict[str, Any]:
    name = "TASKFLOW_WORKER_ONCE"
    variables = [each for each in container["env"] if each.get("name") != name]
    arguments = container.get("args") or []
    if not isinstance(arguments, list):
        raise Invalid(f"container worker: args: expected list, found {type(arguments).__name__}")
    # The name of the message alone: what a Pod says is read by many.
    key = naming.once_key(task.uid, task.status.attempt)
    return {
        **container,
        "args": [*arguments, "--once"],
        "env": [*variables, {"name": name, "value": key}],
    }


@dataclass(frozen=True)
class Job:
    """A Job of ours as the API server shows it."""

    namespace: str
    name: str
    uid: str
    task_uid: str
    attempt: int
    created: datetime
    leaving: bool
    """It was deleted and is ending."""
    ended: datetime | None
    """When its pod came to an end; None while it has not."""

    @property
    def member(self) -> tuple[str, int]:
        """The attempt that it is for."""
        return self.task_uid, self.attempt

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Job:
        """Read a Kubernetes object.

        Raises:
            ValueError, KeyError: it is no Job of ours.
        """
        meta = body["metadata"]
        conditions = (body.get("status") or {}).get("conditions") or ()
        over = [
            datetime.fromisoformat(each["lastTransitionTime"])
            for each in conditions
            if each["type"] in ("Complete", "Failed") and each["status"] == "True"
        ]
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            task_uid=meta["labels"][naming.LABEL_TASK_UID],
            attempt=int(meta["labels"][naming.LABEL_ATTEMPT]),
            created=datetime.fromisoformat(meta["creationTimestamp"]),
            leaving="deletionTimestamp" in meta,
            ended=min(over, default=None),
        )


def trouble(found: Job, pod: Mapping[str, Any] | None, now: datetime) -> str | None:
    """Why an attempt that is still in the ledger does not start, in words; None if there is no reason to worry.

    Args:
        found: the Job of the attempt.
        pod: the latest of its pods, as the API server shows it, if it has one.
        now: the time.
    """
    if pod is None:
        late = found.ended is not None or (now - found.created).total_seconds() > POD_SECONDS
        return f"Job {found.name} has no pod; its events say why" if late else None
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if found.ended is not None:
        return f"pod {name} ended{_exit(status)} before it took the attempt, see its log; another follows"
    if (why := Pod.from_object(pod).trouble or _unscheduled(status)) is not None:
        return f"pod {name}: {why}"
    return None


def _exit(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if container.get("name") == naming.WORKER_CONTAINER and "exitCode" in ended:
            return f" with exit code {ended['exitCode']}"
    return ""


def _unscheduled(status: Mapping[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".rstrip(": ")
    return None
