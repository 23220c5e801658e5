"""Builds the Jobs of Tasks that run in pods of their own, and explains why one does not start. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.plain_text import plain
from taskflow_core.domain.task import Task
from taskflow_core.errors import Invalid
from taskflow_operator.runtime.pod import Pod, how_it_ended, worker_status

BATCH = "apis/batch/v1"
LINGER_SECONDS = 30
"""How long a finished Job stays: long enough to look at its pod."""
START_SECONDS = 10.0
"""A pod that runs for this long and has not taken its attempt is worth a word."""
RETRY_SECONDS = 15.0
"""The time until the next Job, after one that ended without taking its attempt or was refused."""
POD_SECONDS = 10.0
"""A Job that has no pod after this time does not get one by itself."""
_NAME_CHARS = 40
"""Characters of the Task's name in its Job's name, which is also a label value of at most 63."""
_POD_NAME = re.compile(r'^Error creating: pods "[^"]*" is ')
MANAGED = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}
SELECTOR = f"{naming.LABEL_MANAGED_BY}={naming.MANAGED_BY},{naming.LABEL_TASK_UID}"


def job_name(task: Task) -> str:
    """Name of the Job of the current attempt. No two Tasks share it, even if one gets the name of the other later."""
    digest = hashlib.sha256(task.uid.encode()).hexdigest()[:8]
    return f"{task.name[:_NAME_CHARS].replace('.', '-').rstrip('-')}-{digest}-{task.status.attempt}"


def job(task: Task, template: Mapping[str, Any]) -> dict[str, Any]:
    """The Job of the Task's current attempt.

    Args:
        task: owns the Job, which is deleted with it.
        template: pod template of a pool that serves its queue, with a container `worker`.

    Raises:
        Invalid: the container's arguments are no list.
    """
    labels = {**MANAGED, naming.LABEL_TASK_UID: task.uid, naming.LABEL_ATTEMPT: str(task.status.attempt)}
    metadata, spec = template["metadata"], template["spec"]
    # Without the labels of the pool: nothing may count this pod as one of its workers.
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
            # The ledger decides on another attempt, not Kubernetes, and it gets another Job.
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
    # Only the name of the message: many users may read Pods.
    key = naming.keys_of(task.namespace).once(task.uid, task.status.attempt)
    # Nobody waits for this pod to be ready, and it serves no queue.
    kept = {field: value for field, value in container.items() if field != "readinessProbe"}
    return {
        **kept,
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
    terminating: bool
    """It was deleted and is ending."""
    ended: datetime | None
    """When its pod ended; None if it has not."""

    @property
    def key(self) -> AttemptKey:
        """Its attempt."""
        return AttemptKey(self.namespace, self.task_uid, self.attempt)

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
            terminating="deletionTimestamp" in meta,
            ended=min(over, default=None),
        )


def late(found: Job, now: datetime) -> bool:
    """Whether a Job without a pod does not get one by itself."""
    return found.ended is not None or (now - found.created).total_seconds() > POD_SECONDS


def refusal(events: Sequence[Mapping[str, Any]]) -> str:
    """Why a Job has no pod, from its Events `FailedCreate`; empty if there are none. The pod's name, which changes with
    each try, is left out.
    """
    latest = max(events, key=_time_of, default=None)
    note = plain((latest or {}).get("note") or "").strip()
    return _POD_NAME.sub("its pod is ", note)


def _time_of(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")


def problem(found: Job, pod: Mapping[str, Any] | None, now: datetime, refused: str = "") -> str | None:
    """Why an attempt that is still in the ledger does not start; None if there is no problem.

    Args:
        found: the Job of the attempt.
        pod: its latest pod, as the API server shows it, if it has one.
        now: the time.
        refused: why the Job has no pod, if that is known.
    """
    if pod is None:
        known = f": {refused}" if refused else "; its events say why"
        return f"Job {found.name} has no pod{known}" if late(found, now) else None
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    state = worker_status(status).get("state") or {}
    if found.ended is not None:
        ended = state.get("terminated")
        how = f", with {how_it_ended(ended)}" if ended else ""
        return f"pod {name} ended without taking the attempt{how}; another follows"
    if (why := Pod.from_object(pod).problem or _unscheduled(status)) is not None:
        return f"pod {name}: {why}"
    started = (state.get("running") or {}).get("startedAt")
    if started and (now - datetime.fromisoformat(started)).total_seconds() > START_SECONDS:
        return f"pod {name} runs since {started} and has not taken the attempt: it starts, or does not reach Redis"
    return None


def _unscheduled(status: Mapping[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".rstrip(": ")
    return None
