"""The route that adds a backfill to a TaskSchedule."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Response

from taskflow_api.http.access import may_on
from taskflow_api.http.etag import etag
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices
from taskflow_api.schedules.resources import ONE, RESOURCE, change, read, shown
from taskflow_api.schedules.schemas import MAX_BACKFILLS, BackfillBody
from taskflow_api.schedules.views import ScheduleView
from taskflow_core.domain.taskschedule import Backfill, TaskSchedule

ATTEMPTS = 5
"""Of a change that another one came before. The operator writes the status at each tick."""
router = APIRouter(tags=["schedules"], responses=PROBLEMS)


@router.post(
    ONE + ":backfill",
    operation_id="backfillSchedule",
    summary="Run the ticks of a time in the past",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def backfill_schedule(
    response: Response, namespace: Namespace, name: Name, body: BackfillBody, services: InServices
) -> ScheduleView:
    """Adds it to `spec.backfills`. A tick that ran before does not run again. A repeated request changes nothing.

    Up to eight backfills can be in a schedule; those that are complete make room.
    """
    for _ in range(ATTEMPTS):
        found = await read(services, namespace, name)
        schedule = TaskSchedule.from_object(found)
        former = {each.name: each for each in schedule.spec.backfills}
        if body.name in former:
            if former[body.name] == Backfill.model_validate(body.model_dump(by_alias=True)):
                return shown(response, found)
            raise ProblemError(409, f"the schedule has another backfill {body.name}; choose another name")
        wanted = [*_kept(schedule, found), body.model_dump(mode="json", by_alias=True)]
        try:
            return shown(
                response, await change(services, namespace, name, {"spec": {"backfills": wanted}}, etag(found))
            )
        except ProblemError as error:
            if error.status != HTTPStatus.PRECONDITION_FAILED:
                raise
    raise ProblemError(409, "the schedule changes all the time; try again")


def _kept(schedule: TaskSchedule, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The backfills that stay beside a new one: all if there is room, else those that are not complete."""
    former: list[dict[str, Any]] = found["spec"].get("backfills") or []
    if len(former) < MAX_BACKFILLS:
        return former
    complete = {each.name for each in schedule.status.backfills if each.complete}
    if not complete:
        raise ProblemError(409, f"{MAX_BACKFILLS} backfills are not complete; remove one of `spec.backfills`, or wait")
    return [each for each in former if each["name"] not in complete]
