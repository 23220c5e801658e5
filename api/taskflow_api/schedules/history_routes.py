"""The route that lists the runs of a TaskSchedule."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response

from taskflow_api.http import cursors
from taskflow_api.http.access import may_on
from taskflow_api.http.names import LABEL, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices
from taskflow_api.schedules.resources import ONE, RESOURCE, read
from taskflow_api.schedules.views import RunPage, run_view
from taskflow_core.store.schedules import RunKey, RunOutcome

router = APIRouter(tags=["schedules"], responses=PROBLEMS)
# In a cursor, between the uid of a schedule and a token; a uid has none.
_SEPARATOR = "/"


@router.get(
    ONE + "/runs",
    operation_id="listScheduleRuns",
    summary="List the runs of a TaskSchedule, newest tick first",
    dependencies=[Depends(may_on("get", RESOURCE))],
)
async def list_schedule_runs(
    response: Response,
    namespace: Namespace,
    name: Name,
    services: InServices,
    outcome: RunOutcome | None = None,
    backfill: Annotated[str | None, Query(max_length=63, pattern=f"^{LABEL}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> RunPage:
    """From the history: which tick became which Task, and why others were skipped or missed. Runs of a deleted schedule
    are kept, and those of all schedules that had the name are in one list.
    """
    if not await services.history.knows_schedule(namespace, name):
        await read(services, namespace, name)
    wanted = {"outcome": outcome.value if outcome else None, "backfill": backfill}
    scope = [namespace, name, *wanted.values()]
    after = _key(cursor, scope)
    found = await services.history.list_schedule_runs(
        namespace, name, outcomes=[outcome] if outcome else [], backfill=backfill, after=after, limit=limit + 1
    )
    page, following = found[:limit], None
    if len(found) > limit:
        tick, uid, token = page[-1].key
        following = cursors.encode((tick, f"{uid}{_SEPARATOR}{token}"), scope)
        params = wanted | {"limit": limit, "cursor": following}
        encoded = urlencode({name: value for name, value in params.items() if value is not None})
        response.headers["Link"] = f'</v1/namespaces/{namespace}/schedules/{name}/runs?{encoded}>; rel="next"'
    return RunPage(items=[run_view(each) for each in page], next_cursor=following)


def _key(cursor: str | None, scope: list[str | None]) -> RunKey | None:
    if (position := cursors.position(cursor, scope)) is None:
        return None
    uid, _, token = position[1].partition(_SEPARATOR)
    return position[0], uid, token
