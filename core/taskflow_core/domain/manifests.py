"""Builds Task manifests: the JSON objects that are sent to the API server to create a Task. It sends nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from taskflow_core.domain import naming
from taskflow_core.domain.task import Owner

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
