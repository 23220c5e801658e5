"""Builds Task manifests: the JSON objects that are sent to the API server to create a Task. It sends nothing itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from taskflow_core.domain import naming
from taskflow_core.domain.resource import rfc3339
from taskflow_core.domain.task import Owner
from taskflow_core.domain.taskschedule import TaskSchedule

MAX_RETRY_PREFIX = 200
"""Characters of the old name that a retry keeps, so that a suffix still fits into a Kubernetes name (253)."""


class FinishedTask(Protocol):
    """A finished Task to retry, read from a live resource or from the history."""

    @property
    def uid(self) -> str:
        """The uid of the resource."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """The spec as JSON."""

    @property
    def labels(self) -> Mapping[str, str] | None:
        """The labels, or None if they are not known."""


def task_manifest(
    spec: Mapping[str, Any],
    *,
    name: str = "",
    generate_name: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owner: Owner | None = None,
) -> dict[str, Any]:
    """The manifest of a Task. Empty metadata is left out.

    Args:
        spec: The spec as JSON, in the field names of the CRD.
        name: `metadata.name`.
        generate_name: `metadata.generateName`, instead of a name.
        labels: `metadata.labels`.
        annotations: `metadata.annotations`.
        owner: The resource of TaskFlow that becomes its controller; the Task is deleted with it.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "generateName": generate_name,
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
        "ownerReferences": [] if owner is None else [_controller(owner)],
    }
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "Task",
        "metadata": {field: value for field, value in metadata.items() if value},
        "spec": dict(spec),
    }


def _controller(owner: Owner) -> dict[str, Any]:
    return {
        "apiVersion": naming.API_VERSION,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
    }


class ScheduledTimes(Protocol):
    """A run of a TaskSchedule that is to be created."""

    @property
    def name(self) -> str:
        """Name of the Task."""

    @property
    def tick(self) -> datetime:
        """Its tick, or when it was asked for."""

    @property
    def previous(self) -> datetime | None:
        """The tick before."""

    @property
    def next(self) -> datetime | None:
        """The tick after."""

    @property
    def backfill(self) -> str:
        """Name of the backfill that creates it; empty if none does."""

    @property
    def token(self) -> str:
        """What asked for it outside of the timing; empty for a run of a tick."""


def run_name(schedule: str, tick: datetime) -> str:
    """Name of the Task of a tick, which is the same whoever creates it."""
    return f"{schedule}.{tick.astimezone(UTC):%Y%m%dt%H%M%Sz}"


def run_now_name(schedule: str, token: str) -> str:
    """Name of the Task that a token asks for, the same for each use of the token."""
    return f"{schedule}.run-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def run_manifest(schedule: TaskSchedule, run: ScheduledTimes) -> dict[str, Any]:
    """The manifest of the Task that is a run of a schedule.

    Labels and annotations of the template are kept, but for those that say what the Task is a run of.

    Args:
        schedule: its template and `pass` count.
        run: which run.
    """
    template, passed = schedule.spec.task_template, schedule.spec.pass_
    spec = dict(template.spec)
    times = {
        passed.scheduled_time: run.tick,
        passed.previous_time: run.previous,
        passed.next_time: run.next,
    }
    given = {name: None if time is None else rfc3339(time) for name, time in times.items() if name is not None}
    if given:
        spec["kwargs"] = dict(spec.get("kwargs") or {}) | given
    own = {
        naming.ANNOTATION_SCHEDULED_TIME: rfc3339(run.tick),
        naming.ANNOTATION_BACKFILL: run.backfill,
        naming.ANNOTATION_RUN_NOW: run.token,
    }
    annotations = {key: value for key, value in template.metadata.annotations.items() if key not in own}
    return task_manifest(
        spec,
        name=run.name,
        labels=template.metadata.labels | {naming.LABEL_SCHEDULE: schedule.name},
        annotations=annotations | {key: value for key, value in own.items() if value},
        owner=schedule.owner,
    )


def same_run(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a Task that has the name of a run is that run, whoever created it; both as Kubernetes objects.

    A schedule that was deleted and created again runs no tick a second time, so its uid does not matter.
    """
    old, new = existing["metadata"], wanted["metadata"]
    label = naming.LABEL_SCHEDULE
    if (old.get("labels") or {}).get(label) != new["labels"][label]:
        return False
    # The time of a run that a token asked for is when it was asked for.
    token = naming.ANNOTATION_RUN_NOW
    identity = token if token in new["annotations"] else naming.ANNOTATION_SCHEDULED_TIME
    return bool((old.get("annotations") or {}).get(identity) == new["annotations"][identity])


def retry_manifest(old: FinishedTask, *, name: str = "", generate_name: str = "") -> dict[str, Any]:
    """The manifest of a Task that repeats a finished one: the same spec and labels, neither suspended nor cancelled.

    The annotation `taskflow.dev/retried-from` records the uid of the old Task.
    """
    spec = {
        field: value for field, value in old.spec.items() if value is not None and field not in ("cancel", "suspend")
    }
    annotations = {naming.ANNOTATION_RETRIED_FROM: old.uid}
    return task_manifest(spec, name=name, generate_name=generate_name, labels=old.labels, annotations=annotations)


def retry_prefix(name: str) -> str:
    """The beginning of a retry's name, with a dash at its end."""
    return name[:MAX_RETRY_PREFIX].rstrip(".-") + "-"
