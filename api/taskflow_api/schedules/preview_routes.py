"""Routes that tell the next ticks of a TaskSchedule, or of a timing that none has yet."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from taskflow_api.http.access import may, may_on
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import FieldError, ProblemError, pointer
from taskflow_api.http.services import InServices
from taskflow_api.schedules.resources import COLLECTION, ONE, RESOURCE, read
from taskflow_api.schedules.schemas import PreviewBody
from taskflow_api.schedules.views import NextView, TickView
from taskflow_core.domain.calendar import calendar_of, time_zone
from taskflow_core.domain.taskschedule import TaskSchedule, TaskScheduleSpec
from taskflow_core.errors import Invalid

MAX_COUNT = 100
Count = Annotated[int, Query(ge=1, le=MAX_COUNT, description="How many ticks.")]
_FIELD = re.compile(r"(spec[A-Za-z0-9.\[\]]*): (.*)", re.DOTALL)
router = APIRouter(tags=["schedules"], responses=PROBLEMS)


@router.get(
    ONE + "/next",
    operation_id="getNextTicks",
    summary="Get the next ticks of a TaskSchedule",
    dependencies=[Depends(may_on("get", RESOURCE))],
)
async def get_next_ticks(namespace: Namespace, name: Name, services: InServices, count: Count = 10) -> NextView:
    """By its present timing, without jitter. Fewer, if it has an end."""
    schedule = TaskSchedule.from_object(await read(services, namespace, name))
    if schedule.unreadable:
        raise ProblemError(409, f"the specification cannot be read, so nothing runs: {schedule.unreadable}")
    try:
        return _next(schedule.spec, namespace, name, services.now(), count)
    except Invalid as error:
        raise ProblemError(409, f"the schedule has no ticks: {error}") from error


@router.post(
    COLLECTION + ":next",
    operation_id="previewSchedule",
    summary="Get the next ticks of a timing",
    dependencies=[Depends(may("create", RESOURCE))],
)
async def preview_schedule(
    request: Request, namespace: Namespace, body: PreviewBody, services: InServices, count: Count = 10
) -> NextView:
    """As of a schedule that has this specification. Creates nothing."""
    request.state.audit["name"] = f"preview of {body.name}"
    timing = body.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec = TaskScheduleSpec.model_validate(timing | {"taskTemplate": {"spec": {}}})
    try:
        return _next(spec, namespace, body.name, services.now(), count)
    except Invalid as error:
        field = _FIELD.fullmatch(str(error))
        where = re.split(r"[.\[\]]+", field[1].rstrip("]")) if field else ["spec"]
        found = FieldError(pointer=pointer(where), detail=field[2] if field else str(error))
        raise ProblemError(422, "the timing has no ticks", errors=[found]) from error


def _next(spec: TaskScheduleSpec, namespace: str, name: str, now: datetime, count: int) -> NextView:
    calendar, zone = calendar_of(spec, namespace, name), time_zone(spec.time_zone)
    return NextView(
        items=[
            TickView(scheduled_time=tick, local_time=tick.astimezone(zone).isoformat(timespec="seconds"))
            for tick in islice(calendar.after(now), count)
        ],
        time_zone=spec.time_zone,
        resolved_schedules=list(calendar.resolved),
        suspended=spec.suspend,
    )
