"""Calls for Tasks and operations on many Tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from taskflow_client.calls import Answer, Call, as_model, nothing, path, query
from taskflow_client.models import Batch, Operation, Task, TaskDetail, TaskPage, Why

UNCHANGED = 304


def create(
    namespace: str,
    handler: str,
    *,
    name: str | None = None,
    generate_name: str | None = None,
    idempotency_key: str | None = None,
    labels: Mapping[str, str] | None = None,
    wait_seconds: int | None = None,
    dry_run: bool = False,
    **spec: Any,
) -> Call[Task]:
    """Create a Task.

    Exactly one of `name`, `generate_name` and `idempotency_key` names it. With the last, the call is idempotent.

    Args:
        namespace: Namespace of the Task.
        handler: The handler to run.
        name: Name of the Task.
        generate_name: Prefix of the name. The server adds five characters.
        idempotency_key: Identifies the request.
        labels: Labels of the Task.
        wait_seconds: Answer when the Task has finished, or after this time (at most 60).
        dry_run: Validate the Task without creating it.
        spec: Other fields of the spec: `kwargs={...}`, `queue="reports"`, `retryPolicy={...}`.
    """
    body: dict[str, Any] = {"spec": {"handler": handler, **spec}}
    body |= {key: value for key, value in (("name", name), ("generateName", generate_name)) if value is not None}
    if labels:
        body["labels"] = dict(labels)
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
    if wait_seconds is not None:
        headers["Prefer"] = f"wait={wait_seconds}"
    return Call(
        "POST", path(namespace, "tasks"), _task, params=query(dry_run=dry_run or None), headers=headers, body=body
    )


def create_many(
    namespace: str, items: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
) -> Call[Batch]:
    """Create up to 1,000 Tasks, each given as the body of a single one: `{"name": ..., "spec": {...}}`."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
    return Call(
        "POST", path(namespace, "tasks") + ":batch", as_model(Batch), headers=headers, body={"items": list(items)}
    )


def get(namespace: str, name: str, *, if_none_match: str | None = None) -> Call[TaskDetail | None]:
    """Get a Task with its attempts and timeline; None if it still has the ETag."""

    def decode(answer: Answer) -> TaskDetail | None:
        if answer.status == UNCHANGED:
            return None
        return TaskDetail.model_validate_json(answer.body).model_copy(update={"etag": answer.headers.get("etag", "")})

    headers = {"If-None-Match": if_none_match} if if_none_match is not None else {}
    return Call("GET", path(namespace, "tasks", name), decode, headers=headers)


def listed(
    namespace: str,
    *,
    phase: str | None = None,
    queue: str | None = None,
    handler: str | None = None,
    label_selector: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    limit: int | None = None,
) -> Call[TaskPage]:
    """List Tasks, newest first, including deleted ones. `Client.pages` gets all pages."""
    params = query(
        phase=phase,
        queue=queue,
        handler=handler,
        label_selector=label_selector,
        created_after=created_after,
        created_before=created_before,
        limit=limit,
    )

    def following(page: TaskPage) -> Call[TaskPage] | None:
        return replace(call, params=params | {"cursor": page.next_cursor}) if page.next_cursor else None

    call = Call("GET", path(namespace, "tasks"), as_model(TaskPage), params=params, following=following)
    return call


def change(namespace: str, name: str, *, if_match: str | None = None, **spec: Any) -> Call[Task]:
    """Change `suspend`, `priority`, `activeDeadlineSeconds` ...; None removes a value.

    With `if_match`, only if the Task has not changed since.
    """
    headers = {"If-Match": if_match} if if_match is not None else {}
    return Call("PATCH", path(namespace, "tasks", name), _task, headers=headers, body={"spec": spec})


def cancel(namespace: str, name: str) -> Call[Task]:
    """Cancel a Task."""
    return Call("POST", path(namespace, "tasks", name) + ":cancel", _task)


def retry(namespace: str, name: str) -> Call[Task]:
    """Retry a finished Task: creates a new one."""
    return Call("POST", path(namespace, "tasks", name) + ":retry", _task)


def delete(namespace: str, name: str) -> Call[None]:
    """Delete the resource. Its history is kept."""
    return Call("DELETE", path(namespace, "tasks", name), nothing)


def forget_runs(namespace: str, name: str) -> Call[None]:
    """Let the Tasks of a name with `rerun` run again, from the next one that is created."""
    return Call("DELETE", path(namespace, "run-once", name), nothing)


def why(namespace: str, name: str) -> Call[Why]:
    """Explain why a Task waits."""
    return Call("GET", path(namespace, "tasks", name, "why"), as_model(Why))


def cancel_many(namespace: str, **filters: Any) -> Call[Operation]:
    """Cancel Tasks in the background, all or by a filter: `queue="reports"`, `labelSelector="team=a"`."""
    return _many(namespace, "cancel", filters)


def retry_many(namespace: str, **filters: Any) -> Call[Operation]:
    """Retry failed Tasks in the background, all or by a filter."""
    return _many(namespace, "retry", filters)


def operation(namespace: str, id_: str) -> Call[Operation]:
    """Get the progress of an operation."""
    return Call("GET", path(namespace, "operations", id_), as_model(Operation))


def events(namespace: str, name: str | None = None, **filters: object) -> Call[None]:
    """For `Client.events`: the changes of one Task, or of all Tasks that match the filters.

    The filters are `phase`, `queue`, `handler` and `label_selector`.
    """
    parts = ("events",) if name is None else ("tasks", name, "events")
    return Call("GET", path(namespace, *parts), nothing, params=query(**filters))


def logs(
    namespace: str, name: str, *, attempt: int | None = None, follow: bool = False, tail: int | None = None
) -> Call[None]:
    """For `Client.lines`: the log of a Task."""
    params = query(attempt=attempt, follow=follow or None, tail=tail)
    return Call("GET", path(namespace, "tasks", name, "logs"), nothing, params=params)


def _many(namespace: str, verb: str, filters: Mapping[str, Any]) -> Call[Operation]:
    body = {"filter": dict(filters), "all": not filters}
    return Call("POST", path(namespace, "tasks") + f":{verb}", as_model(Operation), body=body)


def _task(answer: Answer) -> Task:
    return Task.model_validate_json(answer.body).model_copy(update={"etag": answer.headers.get("etag", "")})
