"""Routes that create, list, read, change, suspend and delete TaskSchedules."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from taskflow_api.http.access import may, may_on
from taskflow_api.http.etag import IfMatch
from taskflow_api.http.label_selectors import LabelSelector, requirements
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.resource_pages import ResourceCursor, resource_page
from taskflow_api.http.services import InServices
from taskflow_api.schedules.payload import check_schedule, check_template_change
from taskflow_api.schedules.resources import (
    COLLECTION,
    ONE,
    RESOURCE,
    WRITING,
    change,
    no_schedule,
    read,
    schedule_path,
    shown,
)
from taskflow_api.schedules.schemas import ScheduleBody, ScheduleChangeBody
from taskflow_api.schedules.views import SchedulePage, ScheduleView, schedule_view
from taskflow_core.domain import naming
from taskflow_core.domain.taskschedule import KIND
from taskflow_core.errors import NotFound

MAX_PAGE = 500
router = APIRouter(tags=["schedules"], responses=PROBLEMS)


@router.post(
    COLLECTION,
    status_code=201,
    operation_id="createSchedule",
    summary="Create a TaskSchedule",
    dependencies=[Depends(may("create", RESOURCE))],
)
async def create_schedule(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: ScheduleBody,
    services: InServices,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Validate it without creating it.")] = False,
) -> ScheduleView:
    """The first tick is the first one after the creation."""
    request.state.audit["name"] = body.name
    check_schedule(body.spec)
    manifest = {
        "apiVersion": naming.API_VERSION,
        "kind": KIND,
        "metadata": {"name": body.name} | ({"labels": body.labels} if body.labels else {}),
        "spec": body.spec.as_json(),
    }
    params = WRITING | ({"dryRun": "All"} if dry_run else {})
    created = await services.kube.request("POST", schedule_path(namespace), manifest, params=params)
    response.headers["Location"] = f"/v1/namespaces/{namespace}/schedules/{body.name}"
    return shown(response, created)


@router.get(
    COLLECTION,
    operation_id="listSchedules",
    summary="List TaskSchedules, by name",
    dependencies=[Depends(may("list", RESOURCE))],
)
async def list_schedules(
    namespace: Namespace,
    services: InServices,
    label_selector: LabelSelector = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: ResourceCursor = None,
) -> SchedulePage:
    """Lists the live resources."""
    requirements(label_selector)
    page = await resource_page(services.kube, schedule_path(namespace), limit, cursor, label_selector)
    return SchedulePage(items=[schedule_view(body) for body in page.items], next_cursor=page.next_cursor)


@router.get(
    ONE, operation_id="getSchedule", summary="Get a TaskSchedule", dependencies=[Depends(may_on("get", RESOURCE))]
)
async def get_schedule(response: Response, namespace: Namespace, name: Name, services: InServices) -> ScheduleView:
    """Returns the live resource."""
    return shown(response, await read(services, namespace, name))


@router.patch(
    ONE,
    operation_id="changeSchedule",
    summary="Change a TaskSchedule",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def change_schedule(
    response: Response,
    namespace: Namespace,
    name: Name,
    body: ScheduleChangeBody,
    services: InServices,
    if_match: IfMatch = None,
) -> ScheduleView:
    """A JSON merge patch. After a change of the timing, ticks of the past do not run. With If-Match, only if the
    schedule has not changed since (412); status updates change it too.
    """
    check_template_change(body.spec.task_template.spec)
    spec: dict[str, Any] = body.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    return shown(response, await change(services, namespace, name, {"spec": spec}, if_match))


@router.post(
    ONE + ":suspend",
    operation_id="suspendSchedule",
    summary="Suspend a TaskSchedule",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def suspend_schedule(response: Response, namespace: Namespace, name: Name, services: InServices) -> ScheduleView:
    """No tick runs until it is resumed. What runs goes on."""
    return shown(response, await change(services, namespace, name, {"spec": {"suspend": True}}))


@router.post(
    ONE + ":resume",
    operation_id="resumeSchedule",
    summary="Resume a TaskSchedule",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def resume_schedule(response: Response, namespace: Namespace, name: Name, services: InServices) -> ScheduleView:
    """Goes on with the next tick. Those that passed while it was suspended do not run."""
    return shown(response, await change(services, namespace, name, {"spec": {"suspend": False}}))


@router.delete(
    ONE,
    status_code=204,
    operation_id="deleteSchedule",
    summary="Delete a TaskSchedule",
    dependencies=[Depends(may_on("delete", RESOURCE))],
)
async def delete_schedule(namespace: Namespace, name: Name, services: InServices) -> None:
    """Kubernetes deletes its Tasks with it. The history of its runs and Tasks is kept."""
    try:
        await services.kube.request("DELETE", schedule_path(namespace, name))
    except NotFound:
        raise no_schedule(namespace, name) from None
