from __future__ import annotations

import json
import re
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.access import LABEL, InServices, Namespace, TaskName, may, may_on
from taskflow_api.cache import HISTORY_SECONDS, LIVE_SECONDS, Kept, Place
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import FieldError, ProblemError
from taskflow_api.services import Services
from taskflow_api.tasks import cursors
from taskflow_api.tasks.creating import Wish, create, until_finished
from taskflow_api.tasks.filters import LabelSelector, requirements
from taskflow_api.tasks.schemas import Instant, TaskBody
from taskflow_api.tasks.views import TaskDetail, TaskPage, TaskView, detail, from_object, from_row, summary
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import TRACEPARENT
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import tasks_path
from taskflow_core.store.repository import Filter

COLLECTION = "/v1/namespaces/{namespace}/tasks"
ONE = COLLECTION + "/{name:part}"
MAX_WAIT_SECONDS = 60
MAX_TAG_CHARS = 128
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=255, pattern=r"^[\x21-\x7e]+$", description="Names the request, so that it may be repeated."),
]
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


@router.post(
    COLLECTION,
    status_code=201,
    operation_id="createTask",
    summary="Create a Task",
    responses={200: {"model": TaskView, "description": "An earlier request with this Idempotency-Key created it."}},
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
        str | None, Header(max_length=256, description="`wait=N`: answer when it has finished, or after N seconds.")
    ] = None,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Check all, create nothing.")] = False,
) -> TaskView:
    """Create the resource; the API server validates it once more, and its objections are the answer's `errors`.

    With an Idempotency-Key a repeated request answers 200 with the Task that the first one created, and `Idempotent-Replayed: true`.
    """
    request.state.audit["name"] = body.name or ""
    check_name(body, idempotency_key)
    wish = Wish(
        caller=request.state.caller.username,
        key=idempotency_key,
        dry_run=dry_run,
        # One that is not valid is as none: https://www.w3.org/TR/trace-context/#traceparent-header
        traceparent=traceparent if traceparent is not None and TRACEPARENT.fullmatch(traceparent) else None,
    )
    created = await create(services, namespace, body, wish)
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
    COLLECTION,
    operation_id="listTasks",
    summary="List Tasks, newest first, those that are gone included",
    dependencies=[Depends(may("list"))],
    response_model=TaskPage,
)
async def list_tasks(
    namespace: Namespace,
    services: InServices,
    phase: Phase | None = None,
    queue: Annotated[str | None, Query(max_length=63, pattern=f"^{LABEL}$")] = None,
    handler: Annotated[str | None, Query(max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")] = None,
    label_selector: LabelSelector = None,
    created_after: Annotated[Instant | None, Query(alias="createdAfter", description="Then or later.")] = None,
    created_before: Annotated[Instant | None, Query(alias="createdBefore", description="Earlier.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """From the history; it lags behind the resources by the event stream, usually well under a second.

    Labels are those of a Task's latest event: a change of labels alone is seen with the next one.
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
    after = None
    if cursor is not None:
        try:
            after = cursors.decode(cursor, scope)
        except cursors.BadCursor as error:
            raise ProblemError(400, str(error), code="bad-cursor") from error
    kept = await services.cache.look(namespace, f"listTasks {json.dumps([scope, limit, cursor])}", HISTORY_SECONDS)
    if isinstance(kept, Kept):
        return kept.response()
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
    following, told = None, {}
    if len(rows) > limit:
        following = cursors.encode((page[-1].created_at, page[-1].uid), scope)
        asked = wanted | {"limit": limit, "cursor": following}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        told["Link"] = f'</v1/namespaces/{namespace}/tasks?{query}>; rel="next"'
    return await services.cache.keep(kept, TaskPage(items=[summary(row) for row in page], next_cursor=following), told)


@router.get(
    ONE,
    operation_id="getTask",
    summary="Get a Task with its attempts and timeline",
    dependencies=[Depends(may_on("get"))],
    response_model=TaskDetail,
    responses={304: {"description": "With If-None-Match: what you have is what there is."}},
)
async def get_task(
    request: Request,
    namespace: Namespace,
    name: TaskName,
    services: InServices,
    if_none_match: Annotated[
        str | None, Header(max_length=MAX_TAG_CHARS, description="ETag of the answer that you have.")
    ] = None,
) -> Response:
    """The live resource, else what the history kept of the newest Task of that name.

    An answer may be a second old, unless the Task was changed through this API.
    """
    state = request.scope["state"]
    kept = state["looked"] if "looked" in state else await look_for_task(services, namespace, name)
    if isinstance(kept, Kept):
        return kept.response(if_none_match)
    body, view = await find_task(services, namespace, name)
    try:
        runs = await services.history.get_runs(view.uid)
    except Unavailable:
        if not view.live:
            raise
        runs = None
    told = {}
    if body is not None and runs is not None:
        # The past grows without a new version of the resource.
        told["ETag"] = etag(body, len(runs[0]) + len(runs[1]))
    # Of one that is gone nothing is kept: another of its name may be created at any time.
    place = kept if body is not None and runs is not None else None
    answer = await services.cache.keep(place, detail(view, runs), told)
    if if_none_match is not None and "ETag" in told and told["ETag"] in if_none_match:
        return Response(status_code=304, headers=told)
    return answer


@router.delete(
    ONE, status_code=204, operation_id="deleteTask", summary="Delete a Task", dependencies=[Depends(may_on("delete"))]
)
async def delete_task(namespace: Namespace, name: TaskName, services: InServices) -> None:
    """Delete the resource; its history stays."""
    await services.kube.request("DELETE", tasks_path(namespace, name))


async def look_for_task(services: Services, namespace: str, name: str) -> Kept | Place | None:
    """What the cache has of an answer to `getTask`."""
    return await services.cache.look(namespace, f"getTask {name}", LIVE_SECONDS)


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


def check_name(body: TaskBody, key: str | None) -> None:
    """Exactly one thing gives the Task its name.

    Raises:
        ProblemError: 422.
    """
    if key is not None and body.name is not None:
        detail = (
            "expected no name beside an Idempotency-Key, which gives it one: a name alone is refused the second time"
        )
        raise ProblemError(422, "two names for one Task", errors=[FieldError(pointer="/name", detail=detail)])
    if key is None and body.name is None and body.generate_name is None:
        detail = "expected name, generateName or an Idempotency-Key"
        raise ProblemError(422, "the Task has no name", errors=[FieldError(pointer="/name", detail=detail)])


def _wait_seconds(prefer: str | None) -> int | None:
    """Of `Prefer: wait=N` (RFC 7240), at most `MAX_WAIT_SECONDS`; None without one."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})", prefer or "")
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else None


def etag(body: dict[str, Any], past: int | None = None) -> str:
    """Version of the resource, with how much of its past is told."""
    version = body["metadata"].get("resourceVersion", "")
    return f'"{version}"' if past is None else f'"{version}.{past}"'


def wanted_version(if_match: str | None) -> str | None:
    """The resourceVersion that an If-Match asks for; None if any will do.

    Raises:
        ProblemError: 412, it is no ETag of ours, so nothing has it.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    # The part after the dot tells of the past, which a change does not depend on.
    version = if_match.strip().removeprefix("W/").strip('"').partition(".")[0]
    if not re.fullmatch(r"[0-9]{1,20}", version):
        raise ProblemError(412, "expected an ETag of an earlier answer in If-Match; read it again")
    return version
