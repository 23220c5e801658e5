"""The route that runs a TaskSchedule now."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from taskflow_api.http.access import may, may_on, require
from taskflow_api.http.kubernetes_auth import Caller, Resource
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_api.schedules.resources import ONE, RESOURCE, WRITING, change, read
from taskflow_api.schedules.views import RunNowView
from taskflow_api.tasks.lookup import find_task
from taskflow_api.tasks.schemas import IdempotencyKey
from taskflow_api.tasks.views import from_object
from taskflow_core.domain import naming
from taskflow_core.domain.calendar import MICROSECOND, calendar_of
from taskflow_core.domain.manifests import run_manifest, run_now_name, same_run
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.taskschedule import ConcurrencyPolicy, TaskSchedule
from taskflow_core.errors import Conflict, Invalid, Unavailable
from taskflow_core.kube.client import tasks_path
from taskflow_core.store.schedules import RunOutcome, RunRow
from taskflow_core.telemetry.logs import get_logger

TOLD = 3
"""Names of open Tasks in a message."""
_log = get_logger(__name__)
router = APIRouter(tags=["schedules"], responses=PROBLEMS)


@dataclass(frozen=True, slots=True)
class _ManualRun:
    """A run that was asked for by hand, as `run_manifest` takes it."""

    name: str
    tick: datetime
    previous: datetime | None
    next: datetime | None
    token: str
    backfill: str = ""


@router.post(
    ONE + ":run",
    status_code=201,
    operation_id="runSchedule",
    summary="Run a TaskSchedule now",
    responses={
        200: {"model": RunNowView, "description": "An earlier request with the same Idempotency-Key created the Task."},
        202: {"model": RunNowView, "description": "The operator creates the Task after the end of an earlier run."},
    },
    dependencies=[Depends(may_on("get", RESOURCE)), Depends(may("create"))],
)
async def run_schedule(
    request: Request,
    response: Response,
    namespace: Namespace,
    name: Name,
    services: InServices,
    idempotency_key: IdempotencyKey = None,
) -> RunNowView:
    """Creates a Task, outside of the timing, also of a suspended schedule. Obeys `concurrencyPolicy`: 409 while an
    earlier run is not finished and the policy is Forbid; 202 if it is Replace or Queue.
    """
    caller: Caller = request.state.caller
    schedule = TaskSchedule.from_object(await read(services, namespace, name))
    _check(schedule)
    token = _token(caller, schedule, idempotency_key)
    task_name = run_now_name(name, token)
    request.state.audit["name"] = task_name
    if idempotency_key is not None and await services.history.get_task(namespace, task_name) is not None:
        # Deleted or not: a late repetition must not run it again.
        return await _replayed(services, response, namespace, task_name)
    children = await _children(services, schedule)
    if any(child["metadata"]["name"] == task_name for child in children):
        return await _replayed(services, response, namespace, task_name)
    policy = schedule.spec.concurrency_policy
    unfinished = [child["metadata"]["name"] for child in children if _blocks(child)]
    if unfinished and policy is ConcurrencyPolicy.FORBID:
        told = ", ".join(unfinished[:TOLD]) + (f" and {len(unfinished) - TOLD} more" if len(unfinished) > TOLD else "")
        detail = f"concurrencyPolicy is Forbid, and an earlier run is not finished: {told}"
        raise ProblemError(409, detail, code="still-running")
    if unfinished and policy is not ConcurrencyPolicy.ALLOW:
        await require(services, caller, "patch", Resource(naming.GROUP, RESOURCE), namespace, name)
        await change(services, namespace, name, {"metadata": {"annotations": {naming.ANNOTATION_RUN_NOW: token}}})
        response.status_code = HTTPStatus.ACCEPTED
        return RunNowView(task_name=task_name, task=None)
    return await _create(services, response, schedule, task_name, token)


def _check(schedule: TaskSchedule) -> None:
    if schedule.deleting:
        raise ProblemError(409, f"TaskSchedule {schedule.name} is being deleted")
    if schedule.unreadable:
        raise ProblemError(409, f"the specification cannot be read, so nothing runs: {schedule.unreadable}")


def _token(caller: Caller, schedule: TaskSchedule, key: str | None) -> str:
    if key is None:
        return uuid.uuid4().hex
    # Keys of different callers are different keys.
    text = f"{caller.username}\0{schedule.namespace}\0{schedule.name}\0{key}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


async def _create(
    services: Services, response: Response, schedule: TaskSchedule, task_name: str, token: str
) -> RunNowView:
    now = services.now().replace(microsecond=0)
    try:
        calendar = calendar_of(schedule.spec, schedule.namespace, schedule.name)
    except Invalid as error:
        raise ProblemError(409, f"the schedule has no ticks: {error}") from error
    # A tick of this second is one before.
    previous, following = calendar.neighbours(now + MICROSECOND)
    manifest = run_manifest(schedule, _ManualRun(task_name, now, previous, following, token))
    try:
        made = await services.kube.request("POST", tasks_path(schedule.namespace), manifest, params=WRITING)
    except Conflict:
        found = await services.kube.request("GET", tasks_path(schedule.namespace, task_name))
        if not same_run(found, manifest):
            raise
        return await _replayed(services, response, schedule.namespace, task_name)
    await _record(services, schedule, made, token)
    view = from_object(made)
    response.headers["Location"] = f"/v1/namespaces/{schedule.namespace}/tasks/{task_name}"
    return RunNowView(task_name=task_name, task=view)


async def _replayed(services: Services, response: Response, namespace: str, task_name: str) -> RunNowView:
    _, view = await find_task(services, namespace, task_name)
    response.status_code = HTTPStatus.OK
    response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/v1/namespaces/{namespace}/tasks/{task_name}"
    return RunNowView(task_name=task_name, task=view)


async def _children(services: Services, schedule: TaskSchedule) -> Sequence[dict[str, Any]]:
    """Its Tasks: not those of another schedule that had its name before."""
    found: list[dict[str, Any]] = []
    params = {"labelSelector": f"{naming.LABEL_SCHEDULE}={schedule.name}", "limit": "500"}
    following: str | None = ""
    while following is not None:
        more = {"continue": following} if following else {}
        page = await services.kube.request("GET", tasks_path(schedule.namespace), params=params | more)
        found += page["items"]
        following = page["metadata"].get("continue") or None
    return [child for child in found if any(owner.get("uid") == schedule.uid for owner in _owners(child))]


def _owners(child: dict[str, Any]) -> Sequence[dict[str, Any]]:
    owners: Sequence[dict[str, Any]] = child["metadata"].get("ownerReferences") or ()
    return owners


def _blocks(child: dict[str, Any]) -> bool:
    """Whether the concurrency policy counts it. Backfills have a parallelism of their own."""
    phase = (child.get("status") or {}).get("phase")
    is_open = phase is None or not Phase(phase).terminal
    return is_open and naming.ANNOTATION_BACKFILL not in (child["metadata"].get("annotations") or {})


async def _record(services: Services, schedule: TaskSchedule, made: dict[str, Any], token: str) -> None:
    meta = made["metadata"]
    created = from_object(made).created_at
    run = RunRow(
        schedule_uid=schedule.uid,
        namespace=schedule.namespace,
        schedule=schedule.name,
        tick=created,
        token=token,
        outcome=RunOutcome.CREATED,
        task_uid=meta["uid"],
        task_name=meta["name"],
        decided_at=created,
    )
    try:
        await services.history.record_schedule_run(run)
    except Unavailable as error:
        # The Task exists, so the request succeeded.
        _log.warning("schedule_run_not_recorded", name=meta["name"], cause=str(error))
