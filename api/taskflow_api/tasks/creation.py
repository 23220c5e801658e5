"""Creates Tasks, with an idempotency key at most once. The routes of single and batch creation use it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from taskflow_api.http.problems import FieldError, ProblemError
from taskflow_api.http.services import Services
from taskflow_api.ports import FIELD_MANAGER
from taskflow_api.tasks.payload import check_payload
from taskflow_api.tasks.schemas import TaskBody
from taskflow_core.domain import naming
from taskflow_core.domain.manifests import task_manifest
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import TaskSpec
from taskflow_core.errors import Conflict, NotFound, TaskflowError
from taskflow_core.kube.client import tasks_path

PREFIX = "task-"
CHANGEABLE = frozenset(
    {
        "priority",
        "suspend",
        "cancel",
        "active_deadline_seconds",
        "queue_timeout_seconds",
        "ttl_seconds_after_finished",
    }
)
"""Spec fields that may have changed since the Task was created."""


@dataclass(frozen=True)
class CreateOptions:
    """How to create a Task."""

    caller: str
    """User name of the caller. Idempotency keys of different callers are different keys."""
    key: str | None = None
    """Idempotency-Key."""
    dry_run: bool = False
    traceparent: str | None = None


@dataclass(frozen=True)
class Created:
    """A Task that this request or an earlier one with the same key created."""

    body: dict[str, Any] | None
    """The resource; None if only the history still has it."""
    name: str
    replayed: bool = False


async def create(services: Services, namespace: str, wanted: TaskBody, options: CreateOptions) -> Created:
    """Create the resource. Its name is derived from the key, if there is one, so a repeated request finds it again.

    Raises:
        ProblemError: the payload is too large, or the key was used with another body (422).
        Conflict, Invalid: the API server rejects the Task.
        Unavailable: the API server does not answer, or there is a key and the history does not answer.
    """
    check_payload(wanted.spec)
    name, generate_name = wanted.name or "", wanted.generate_name or ""
    annotations: dict[str, str] = {}
    if options.traceparent is not None:
        annotations[naming.ANNOTATION_TRACEPARENT] = options.traceparent
    if options.key is not None:
        name, generate_name = _name(namespace, generate_name or PREFIX, options), ""
        annotations[naming.ANNOTATION_REQUEST] = _fingerprint(wanted)
        if (earlier := await _from_history(services, namespace, name, wanted)) is not None:
            return earlier
    manifest = task_manifest(
        wanted.spec_json(), name=name, generate_name=generate_name, labels=wanted.labels, annotations=annotations
    )
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    if options.dry_run:
        params["dryRun"] = "All"
    try:
        made = await services.kube.request("POST", tasks_path(namespace), manifest, params=params)
    except Conflict:
        if options.key is None:
            raise
        return _replayed(await services.kube.request("GET", tasks_path(namespace, name)), wanted)
    return Created(made, made["metadata"]["name"])


def _name(namespace: str, prefix: str, options: CreateOptions) -> str:
    digest = hashlib.sha256("\0".join((options.caller, namespace, str(options.key))).encode())
    return prefix + digest.hexdigest()[:20]


def _fingerprint(wanted: TaskBody) -> str:
    canonical = json.dumps(wanted.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


async def _from_history(services: Services, namespace: str, name: str, wanted: TaskBody) -> Created | None:
    """The Task of an earlier request, even if it was deleted since: a late repetition must not run it again."""
    row = await services.history.get_task(namespace, name)
    if row is None:
        return None
    try:
        body = await services.kube.request("GET", tasks_path(namespace, name))
    except NotFound:
        if not _asked_for(wanted.spec_json(), {field: value for field, value in row.spec.items() if value is not None}):
            raise _key_reused() from None
        return Created(None, name, replayed=True)
    return _replayed(body, wanted)


def _asked_for(asked: dict[str, Any], stored: dict[str, Any]) -> bool:
    """Whether a Task that has the stored specification was asked for by this one.

    Only what cannot change after the creation is compared; labels can. What the request leaves out, a TaskTemplate may
    have filled in.
    """
    new, old = _immutable(asked), _immutable(stored)
    if new["attempt_timeout_seconds"] is None:
        old["attempt_timeout_seconds"] = None
    given, found = new.pop("kwargs"), old.pop("kwargs")
    return new == old and given.items() <= found.items()


def _immutable(spec: dict[str, Any]) -> dict[str, Any]:
    return TaskSpec.model_validate(spec).model_dump(mode="json", exclude=set(CHANGEABLE))


def _replayed(body: dict[str, Any], wanted: TaskBody) -> Created:
    annotations = body["metadata"].get("annotations") or {}
    if annotations.get(naming.ANNOTATION_REQUEST) != _fingerprint(wanted):
        raise _key_reused()
    return Created(body, body["metadata"]["name"], replayed=True)


def _key_reused() -> ProblemError:
    error = FieldError(location="header", pointer="/idempotency-key", detail="expected a new key for another body")
    return ProblemError(422, "the key was used with another body", code="idempotency-key-reused", errors=[error])


def check_name(body: TaskBody, key: str | None) -> None:
    """Check that exactly one of name, generateName and key names the Task.

    Raises:
        ProblemError: 422.
    """
    if key is not None and body.name is not None:
        detail = "expected no name together with an Idempotency-Key, from which the name is derived"
        raise ProblemError(422, "the Task has two names", errors=[FieldError(pointer="/name", detail=detail)])
    if key is None and body.name is None and body.generate_name is None:
        detail = "expected name, generateName or an Idempotency-Key"
        raise ProblemError(422, "the Task has no name", errors=[FieldError(pointer="/name", detail=detail)])


async def until_finished(services: Services, body: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Wait until the Task finishes; returns its latest state, also when the time is over or the watch fails."""
    meta = body["metadata"]
    path, selector = tasks_path(meta["namespace"]), f"metadata.name={meta['name']}"
    try:
        async with asyncio.timeout(seconds):
            async for events in services.kube.watch(path, meta["resourceVersion"], selector):
                for event in events:
                    found = event["object"]
                    if event["type"] == "DELETED" or found["metadata"].get("uid", meta["uid"]) != meta["uid"]:
                        return body
                    if event["type"] != "BOOKMARK":
                        body = found
                if _finished(body):
                    return body
    except (TimeoutError, TaskflowError):
        # The Task exists, so the request succeeded.
        return body
    return body


def _finished(body: dict[str, Any]) -> bool:
    phase = (body.get("status") or {}).get("phase")
    return phase is not None and Phase(phase).terminal
