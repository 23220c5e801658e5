"""Routes that create, list, read and delete Tasks. Other modules of this package change them."""

from __future__ import annotations

import json
import re
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.http import cursors
from taskflow_api.http.access import may, may_on
from taskflow_api.http.body import Instant
from taskflow_api.http.etag import etag
from taskflow_api.http.label_selectors import LabelSelector, requirements
from taskflow_api.http.names import HANDLER, LABEL, TASK, TASKS, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.read_cache import HISTORY_SECONDS, CachedAnswer
from taskflow_api.http.services import InServices
from taskflow_api.tasks.creation import CreateOptions, check_name, create, until_finished
from taskflow_api.tasks.lookup import MAX_TAG_CHARS, cached_task, find_task
from taskflow_api.tasks.schemas import IdempotencyKey, TaskBody
from taskflow_api.tasks.views import TaskDetail, TaskPage, TaskView, detail, from_object, summary
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import TRACEPARENT
from taskflow_core.errors import Unavailable
from taskflow_core.kube.client import tasks_path
from taskflow_core.store.repository import Filter

MAX_WAIT_SECONDS = 60
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


@router.post(
    TASKS,
    status_code=201,
    operation_id="createTask",
    summary="Create a Task",
    responses={200: {"model": TaskView, "description": "An earlier request with the same Idempotency-Key created it."}},
    dependencies=[Depends(may("create"))],
)
async def create_task(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: TaskBody,
    services: InServices,
    traceparent: Annotated[str | None, Header(max_length=256, description="W3C trace context of the caller.")] = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[
        str | None,
        Header(max_length=256, description="`wait=N`: answer when the Task has finished, or after N seconds."),
    ] = None,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Validate the Task without creating it.")] = False,
) -> TaskView:
    """Create the resource. The API server validates it too, and its errors are the `errors` of the answer.

    With an Idempotency-Key, a repeated request answers 200 with the first Task and `Idempotent-Replayed: true`.
    """
    request.state.audit["name"] = body.name or ""
    check_name(body, idempotency_key)
    options = CreateOptions(
        caller=request.state.caller.username,
        key=idempotency_key,
        dry_run=dry_run,
        # An invalid header is ignored: https://www.w3.org/TR/trace-context/#traceparent-header
        traceparent=traceparent if traceparent is not None and TRACEPARENT.fullmatch(traceparent) else None,
    )
    created = await create(services, namespace, body, options)
    request.state.audit["name"] = created.name
    response.headers["Location"] = f"/v1/namespaces/{namespace}/tasks/{created.name}"
    if created.replayed:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    if created.body is None:
        _, view = await find_task(services, namespace, created.name)
        return view
    found = created.body
    if not dry_run and (seconds := _wait_seconds(prefer)) is not None:
        response.headers["Preference-Applied"] = f"wait={seconds}"
        found = await until_finished(services, found, seconds)
    response.headers["ETag"] = etag(found)
    return from_object(found)


@router.get(
    TASKS,
    operation_id="listTasks",
    summary="List Tasks, newest first, including deleted ones",
    dependencies=[Depends(may("list"))],
    response_model=TaskPage,
)
async def list_tasks(
    namespace: Namespace,
    services: InServices,
    phase: Phase | None = None,
    queue: Annotated[str | None, Query(max_length=63, pattern=f"^{LABEL}$")] = None,
    handler: Annotated[str | None, Query(max_length=253, pattern=HANDLER)] = None,
    label_selector: LabelSelector = None,
    created_after: Annotated[Instant | None, Query(alias="createdAfter", description="At this time or later.")] = None,
    created_before: Annotated[Instant | None, Query(alias="createdBefore", description="Before this time.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """From the history, which lags behind the resources, usually by much less than a second.

    Labels are those of the latest event of a Task. A change of labels alone becomes visible with the next event.
    """
    labels = requirements(label_selector)
    wanted = {
        "phase": phase.value if phase else None,
        "queue": queue,
        "handler": handler,
        "labelSelector": label_selector or None,
        "createdAfter": created_after.isoformat() if created_after else None,
        "createdBefore": created_before.isoformat() if created_before else None,
    }
    scope = [namespace, *wanted.values()]
    after = cursors.position(cursor, scope)
    query = f"listTasks {json.dumps([scope, limit, cursor])}"
    cached = await services.cache.get(namespace, query, HISTORY_SECONDS)
    if isinstance(cached, CachedAnswer):
        return cached.response()
    rows = await services.history.list_tasks(
        namespace,
        Filter(
            phases=(phase,) if phase else (),
            queue=queue,
            handler=handler,
            labels=labels,
            created_after=created_after,
            created_before=created_before,
        ),
        after=after,
        limit=limit + 1,
    )
    page = rows[:limit]
    following, headers = None, {}
    if len(rows) > limit:
        following = cursors.encode((page[-1].created_at, page[-1].uid), scope)
        params = wanted | {"limit": limit, "cursor": following}
        encoded = urlencode({name: value for name, value in params.items() if value is not None})
        headers["Link"] = f'</v1/namespaces/{namespace}/tasks?{encoded}>; rel="next"'
    content = TaskPage(items=[summary(row) for row in page], next_cursor=following)
    return await services.cache.response(cached, content, headers)


@router.get(
    TASK,
    operation_id="getTask",
    summary="Get a Task with its attempts and timeline",
    dependencies=[Depends(may_on("get"))],
    response_model=TaskDetail,
    responses={304: {"description": "The Task still has the ETag of If-None-Match."}},
)
async def get_task(
    request: Request,
    namespace: Namespace,
    name: Name,
    services: InServices,
    if_none_match: Annotated[
        str | None, Header(max_length=MAX_TAG_CHARS, description="ETag of an earlier answer.")
    ] = None,
) -> Response:
    """The live resource, or the newest Task of that name in the history.

    An answer may be one second old, unless the Task was changed through this API.
    """
    state = request.scope["state"]
    cached = state["cached"] if "cached" in state else await cached_task(services, namespace, name)
    if isinstance(cached, CachedAnswer):
        return cached.response(if_none_match)
    body, view = await find_task(services, namespace, name)
    try:
        runs = await services.history.get_runs(view.uid)
    except Unavailable:
        if not view.live:
            raise
        runs = None
    headers = {}
    if body is not None and runs is not None:
        # The history grows without a new version of the resource.
        headers["ETag"] = etag(body, len(runs[0]) + len(runs[1]))
    # A deleted Task is not cached: another one of its name may be created at any time.
    miss = cached if body is not None and runs is not None else None
    answer = await services.cache.response(miss, detail(view, runs), headers)
    if if_none_match is not None and "ETag" in headers and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return answer


@router.delete(
    TASK, status_code=204, operation_id="deleteTask", summary="Delete a Task", dependencies=[Depends(may_on("delete"))]
)
async def delete_task(namespace: Namespace, name: Name, services: InServices) -> None:
    """Delete the resource. Its history is kept."""
    await services.kube.request("DELETE", tasks_path(namespace, name))


def _wait_seconds(prefer: str | None) -> int | None:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most `MAX_WAIT_SECONDS`; None without it."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})", prefer or "")
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else None
