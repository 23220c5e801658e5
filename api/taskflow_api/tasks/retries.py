"""What a retry copies: the resource while it exists, else the history's row, which is checked like a caller's body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskflow_api.http.problems import ProblemError
from taskflow_api.tasks.payload import check_payload
from taskflow_api.tasks.schemas import TaskBody
from taskflow_core.domain.manifests import FinishedTask
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import MAX_JSON_LEVELS, Task, nested_deeper
from taskflow_core.errors import Invalid, NotFound
from taskflow_core.kube.client import Requests, tasks_path
from taskflow_core.store.rows import TaskRow

MAX_SPEC_LEVELS = MAX_JSON_LEVELS + 4
"""Of a whole specification: the payload is within `spec.array.items`."""


@dataclass(frozen=True, slots=True)
class RetrySource:
    """The uid, specification and labels of a finished Task. Namespace and name of a retry never come from it."""

    uid: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str] | None


def checked(stored: FinishedTask) -> RetrySource:
    """A Task of the history as a source.

    Raises:
        pydantic.ValidationError, ProblemError, Invalid: a caller could not create a Task with this specification.
    """
    if not isinstance(stored.spec, Mapping):
        raise Invalid("the history has no specification of this Task")
    spec = {field: value for field, value in stored.spec.items() if value is not None}
    labels = dict(stored.labels or {})
    try:
        text = json.dumps({"labels": labels, "spec": spec})
    except RecursionError as error:
        raise Invalid("the specification is nested too deep") from error
    check_payload(TaskBody.model_validate_json(text).spec)
    return RetrySource(stored.uid, spec, labels)


def live(body: Mapping[str, Any]) -> RetrySource:
    """A resource as a source.

    Raises:
        Invalid: its payload is nested deeper than that of a Task may be.
    """
    spec, meta = body["spec"], body["metadata"]
    if nested_deeper(spec, MAX_SPEC_LEVELS):
        raise Invalid("the specification is nested too deep to be repeated")
    return RetrySource(meta["uid"], spec, meta.get("labels"))


async def retry_source(kube: Requests, namespace: str, row: TaskRow) -> RetrySource:
    """The source of a retry of the Task that the row is about, which the API server is asked for first.

    Raises:
        pydantic.ValidationError, ProblemError, Invalid: as `checked`; or the row names no Task.
        Unavailable, Forbidden: as the API server says.
    """
    try:
        body = await kube.request("GET", tasks_path(namespace, row.name))
    except NotFound:
        return checked(row)
    if body["metadata"]["uid"] != row.uid:
        return checked(row)
    task = Task.from_object(body)
    if task.status.phase is None or not Phase(task.status.phase).terminal:
        raise ProblemError(409, f"Task {row.name} has not finished; only a finished Task can be retried")
    return live(body)
