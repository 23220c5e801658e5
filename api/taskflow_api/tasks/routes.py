from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.access import LABEL, InServices, Namespace, TaskName, may, may_on
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import FieldError, ProblemError
from taskflow_api.services import Services
from taskflow_api.tasks import cursors
from taskflow_api.tasks.schemas import TaskBody
from taskflow_api.tasks.views import TaskDetail, TaskPage, TaskView, detail, from_object, from_row, summary
from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import MAX_PAYLOAD_BYTES, TRACEPARENT, payload_bytes
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import tasks_path

COLLECTION = "/v1/namespaces/{namespace}/tasks"
ONE = COLLECTION + "/{name}"
FIELD_MANAGER = "taskflow-api"
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


@router.post(
    COLLECTION,
    status_code=201,
    operation_id="createTask",
    summary="Create a Task",
    dependencies=[Depends(may("create"))],
)
async def create_task(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: TaskBody,
    services: InServices,
    traceparent: Annotated[str | None, Header(max_length=256, description="W3C trace context of the caller.")] = None,
) -> TaskView:
    """Create the resource; the API server validates it once more, and its objections are the answer's `errors`."""
    request.state.audit["name"] = body.name or ""
    _check_payload(body)
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    wanted = body.to_object(naming.API_VERSION)
    # One that is not valid is as none: https://www.w3.org/TR/trace-context/#traceparent-header
    if traceparent is not None and TRACEPARENT.fullmatch(traceparent):
        wanted["metadata"]["annotations"] = {naming.ANNOTATION_TRACEPARENT: traceparent}
    created = await services.kube.request("POST", tasks_path(namespace), wanted, params=params)
    view = from_object(created)
    request.state.audit["name"] = view.name
    response.headers["Location"] = f"/v1/namespaces/{namespace}/tasks/{view.name}"
    response.headers["ETag"] = _etag(created)
    return view


@router.get(
    COLLECTION,
    operation_id="listTasks",
    summary="List Tasks, newest first, those that are gone included",
    dependencies=[Depends(may("list"))],
)
async def list_tasks(
    response: Response,
    namespace: Namespace,
    services: InServices,
    phase: Phase | None = None,
    queue: Annotated[str | None, Query(max_length=63, pattern=f"^{LABEL}$")] = None,
    handler: Annotated[str | None, Query(max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> TaskPage:
    """From the history; it lags behind the resources by the event stream, usually well under a second."""
    scope = [namespace, phase and phase.value, queue, handler]
    after = None
    if cursor is not None:
        try:
            after = cursors.decode(cursor, scope)
        except cursors.BadCursor as error:
            raise ProblemError(400, str(error), code="bad-cursor") from error
    rows = await services.history.list_tasks(
        namespace, phase=phase, queue=queue, handler=handler, after=after, limit=limit + 1
    )
    page = rows[:limit]
    following = None
    if len(rows) > limit:
        following = cursors.encode((page[-1].created_at, page[-1].uid), scope)
        wanted = {"phase": phase, "queue": queue, "handler": handler, "limit": limit, "cursor": following}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        response.headers["Link"] = f'</v1/namespaces/{namespace}/tasks?{query}>; rel="next"'
    return TaskPage(items=[summary(row) for row in page], next_cursor=following)


@router.get(
    ONE,
    operation_id="getTask",
    summary="Get a Task with its attempts and timeline",
    dependencies=[Depends(may_on("get"))],
)
async def get_task(response: Response, namespace: Namespace, name: TaskName, services: InServices) -> TaskDetail:
    """The live resource, else what the history kept of the newest Task of that name."""
    body, view = await find_task(services, namespace, name)
    if body is not None:
        response.headers["ETag"] = _etag(body)
    try:
        runs = await services.history.get_runs(view.uid)
    except Unavailable:
        if not view.live:
            raise
        runs = None
    return detail(view, runs)


@router.delete(
    ONE, status_code=204, operation_id="deleteTask", summary="Delete a Task", dependencies=[Depends(may_on("delete"))]
)
async def delete_task(namespace: Namespace, name: TaskName, services: InServices) -> None:
    """Delete the resource; its history stays."""
    await services.kube.request("DELETE", tasks_path(namespace, name))


async def find_task(services: Services, namespace: str, name: str) -> tuple[dict[str, Any] | None, TaskView]:
    """The live resource and its view, or None and what the history kept.

    Raises:
        NotFound: neither knows it.
        Unavailable: the API server does not answer; or it has no such Task and PostgreSQL does not answer.
    """
    try:
        body = await services.kube.request("GET", tasks_path(namespace, name))
    except NotFound:
        row = await services.history.get_task(namespace, name)
        if row is None:
            raise NotFound(f"there is no Task {name} in namespace {namespace}, and there was none") from None
        return None, from_row(row)
    return body, from_object(body)


def _check_payload(body: TaskBody) -> None:
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


def _etag(body: dict[str, Any]) -> str:
    return f'"{body["metadata"]["resourceVersion"]}"'
