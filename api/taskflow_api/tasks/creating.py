"""Creating Tasks: once each, however often the request is repeated."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from taskflow_api.problems import FieldError, ProblemError
from taskflow_api.services import Services
from taskflow_api.tasks.schemas import TaskBody
from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import MAX_PAYLOAD_BYTES, TaskSpec, payload_bytes
from taskflow_core.errors import Conflict, NotFound, TaskflowError
from taskflow_core.kube.client import tasks_path

FIELD_MANAGER = "taskflow-api"
PREFIX = "task-"
MAX_PREFIX = 200
"""Of the old name in that of a Task created once more."""
CHANGEABLE = frozenset(
    {
        "priority", "suspend", "cancel", "active_deadline_seconds", "queue_timeout_seconds",
        "ttl_seconds_after_finished",
    }
)  # fmt: skip
"""Fields that may differ from what a Task was created with."""


@dataclass(frozen=True)
class Wish:
    """How a Task is to be created."""

    caller: str
    """Name of the identity: a key is its own."""
    key: str | None = None
    """Idempotency-Key."""
    dry_run: bool = False
    traceparent: str | None = None


@dataclass(frozen=True)
class Created:
    """A Task that was created, now or by an earlier request with the same key."""

    body: dict[str, Any] | None
    """The resource; None if only the history has it still."""
    name: str
    replayed: bool = False


async def create(services: Services, namespace: str, wanted: TaskBody, wish: Wish) -> Created:
    """Create the resource. With a key, its name follows from the key, so that a repeated request meets it again.

    Raises:
        ProblemError: the payload is too large; or the key was used for another Task (422).
        Conflict, Invalid, Unavailable: as the API server says; or the history, which has to be asked with a key, does not answer.
    """
    check_payload(wanted)
    body = wanted.to_object(naming.API_VERSION)
    metadata = body["metadata"]
    annotations: dict[str, str] = {}
    if wish.traceparent is not None:
        annotations[naming.ANNOTATION_TRACEPARENT] = wish.traceparent
    if wish.key is not None:
        metadata["name"] = _name(namespace, metadata.pop("generateName", PREFIX), wish)
        annotations[naming.ANNOTATION_REQUEST] = _fingerprint(wanted)
        if (past := await _in_the_past(services, namespace, metadata["name"], wanted)) is not None:
            return past
    if annotations:
        metadata["annotations"] = annotations
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    if wish.dry_run:
        params["dryRun"] = "All"
    try:
        made = await services.kube.request("POST", tasks_path(namespace), body, params=params)
    except Conflict:
        if wish.key is None:
            raise
        return _same(await services.kube.request("GET", tasks_path(namespace, metadata["name"])), wanted)
    return Created(made, made["metadata"]["name"])


def _name(namespace: str, prefix: str, wish: Wish) -> str:
    digest = hashlib.sha256("\0".join((wish.caller, namespace, str(wish.key))).encode())
    return prefix + digest.hexdigest()[:20]


def _fingerprint(wanted: TaskBody) -> str:
    canonical = json.dumps(wanted.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


async def _in_the_past(services: Services, namespace: str, name: str, wanted: TaskBody) -> Created | None:
    """The Task of that name that finished and was deleted; without this, a late repetition would run it again."""
    row = await services.history.get_task(namespace, name)
    if row is None:
        return None
    try:
        body = await services.kube.request("GET", tasks_path(namespace, name))
    except NotFound:
        # What could be changed after its creation is not compared, labels among it.
        spec = wanted.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if _lasting(spec) != _lasting({field: value for field, value in row.spec.items() if value is not None}):
            raise _other_body() from None
        return Created(None, name, replayed=True)
    return _same(body, wanted)


def _lasting(spec: dict[str, Any]) -> dict[str, Any]:
    return TaskSpec.model_validate(spec).model_dump(mode="json", exclude=set(CHANGEABLE))


def _same(body: dict[str, Any], wanted: TaskBody) -> Created:
    annotations = body["metadata"].get("annotations") or {}
    if annotations.get(naming.ANNOTATION_REQUEST) != _fingerprint(wanted):
        raise _other_body()
    return Created(body, body["metadata"]["name"], replayed=True)


def _other_body() -> ProblemError:
    error = FieldError(location="header", pointer="/idempotency-key", detail="expected a new key for another body")
    return ProblemError(422, "the key was used for another body", code="idempotency-key-reused", errors=[error])


def check_payload(body: TaskBody) -> None:
    """Refuse what the operator would refuse, before it is created.

    Raises:
        ProblemError: 413 or 422.
    """
    payload = [body.spec.args, body.spec.kwargs]
    try:
        json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        # NaN, Infinity and lone surrogates: Python reads them, JSON has none of them.
        errors = [FieldError(pointer="/spec", detail=str(error))]
        raise ProblemError(422, "args and kwargs have a value that JSON does not", errors=errors) from error
    # Counted as the operator counts, which has the last word.
    size = payload_bytes(body.spec.args, body.spec.kwargs)
    if size > MAX_PAYLOAD_BYTES:
        raise ProblemError(
            413,
            f"args and kwargs are {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are taken; "
            "upload more and name it as an input",
            code="payload-too-large",
        )


async def until_finished(services: Services, body: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The resource once it has finished, or as it is after that time, or as it was last seen when watching it fails."""
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
        # The Task stands; the answer tells how far it is.
        return body
    return body


class Finished(Protocol):
    """What another Task is made like."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def spec(self) -> dict[str, Any]:
        """As on the wire."""

    @property
    def labels(self) -> dict[str, str] | None:
        """As far as they are known."""


def again(old: Finished, **metadata: str) -> dict[str, Any]:
    """The Kubernetes object of a Task like one that has finished, with `name` or `generateName`."""
    spec = {
        field: value for field, value in old.spec.items() if value is not None and field not in ("cancel", "suspend")
    }
    annotations = {naming.ANNOTATION_RETRIED_FROM: old.uid}
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "Task",
        "metadata": {**metadata, "annotations": annotations, "labels": old.labels or {}},
        "spec": spec,
    }


def _finished(body: dict[str, Any]) -> bool:
    phase = (body.get("status") or {}).get("phase")
    return phase is not None and Phase(phase).terminal
