"""`GET .../tasks/{name}/why`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends

from taskflow_api.access import InServices, Namespace, TaskName, may_on
from taskflow_api.auth import Caller, Resource
from taskflow_api.documented import PROBLEMS
from taskflow_api.services import Services
from taskflow_api.tasks.routes import ONE, find_task
from taskflow_api.waiting.estimate import LOOKED_AT, WINDOW, Estimate, estimate
from taskflow_api.waiting.reasons import Awaited, Explanation, PoolState, explain
from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import Dependency, Task
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import resource_path, tasks_path
from taskflow_core.ledger.queue_view import Place
from taskflow_core.telemetry.logs import get_logger

_log = get_logger(__name__)
POOLS = Resource(naming.GROUP, "workerpools")
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


class DependencyView(Model):
    """A Task that this one waits for."""

    name: str
    outcome: str
    phase: str | None
    """None if there is none of that name."""
    met: bool


class PoolView(Model):
    """A pool that serves the queue."""

    name: str
    paused: bool
    drain: bool
    slots: int
    busy_slots: int
    stalled: str
    """Why its workers cannot start; empty if they can."""


class WhyView(Model):
    """Why a Task waits."""

    waiting: bool
    phase: str
    reason: str
    """One of the Task's reasons, or StartingPod, PoolPaused, PoolDraining, PoolStalled, NoWorkers, WorkersStarting, NotQueuedYet, AllSlotsBusy."""
    message: str
    since: datetime | None
    """Since when it is queued; before that, since it was created."""
    until: datetime | None
    """When that reason ends, if it is known."""
    depends_on: list[DependencyView]
    pools: list[PoolView] | None
    """Those that serve its queue; null without the right to list workerpools.taskflow.dev."""
    queue_position: int | None
    """1 is the next of its queue; null if it does not stand there, or the broker cannot be asked."""
    position_exact: bool | None
    """False: its message was not found, and this is where it should be by its age."""
    starts_per_minute: float | None
    estimated_start: datetime | None
    """Null if it is not known."""
    estimate_basis: str
    """What the estimate is computed from, or why there is none."""


@router.get(ONE + "/why", operation_id="getWhy", summary="Why a Task waits")
async def get_why(
    namespace: Namespace, name: TaskName, services: InServices, caller: Annotated[Caller, Depends(may_on("get"))]
) -> WhyView:
    """In words; with its place in the queue and, from how fast the queue went lately, when it will start."""
    body, view = await find_task(services, namespace, name)
    if body is None:
        gone = Explanation(
            waiting=False, reason=view.reason, message="the resource is gone; this is what the history kept"
        )
        return _view(view.phase, gone, None, None, (), None)
    task, now = Task.from_object(body), services.now()
    pools, awaited = await asyncio.gather(_pools(services, namespace), _awaited(services, task))
    may_see = await services.gate.allows(caller, "list", namespace, resource=POOLS)
    why = explain(task, awaited, pools, now)
    if why.reason == "PoolStalled" and not may_see:
        why = Explanation(why.waiting, why.reason, "workers of the pools that serve its queue cannot start")
    place, guess = None, None
    if why.waiting and not task.isolated:
        place = await _place(services, task)
        guess = await _estimate(services, task, place if why.in_line else None, now)
    serving = [pool for pool in pools if task.spec.queue in pool.queues] if may_see else None
    since = (task.status.queued_time if task.status.phase is Phase.QUEUED else None) or task.created
    return _view(
        task.status.phase or Phase.PENDING, why, since if why.waiting else None, place, awaited, serving, guess
    )


def _view(
    phase: str,
    why: Explanation,
    since: datetime | None,
    place: Place | None,
    awaited: Sequence[Awaited],
    pools: Sequence[PoolState] | None,
    guess: Estimate | None = None,
) -> WhyView:
    return WhyView(
        waiting=why.waiting,
        phase=phase,
        reason=why.reason,
        message=why.message,
        since=since,
        until=why.until,
        depends_on=[
            DependencyView(name=each.wanted.name, outcome=each.wanted.outcome, phase=each.phase, met=each.met)
            for each in awaited
        ],
        pools=None
        if pools is None
        else [
            PoolView(
                name=pool.name, paused=pool.paused, drain=pool.drain, slots=pool.slots, busy_slots=pool.busy,
                stalled=pool.stalled,
            )
            for pool in pools
        ],
        queue_position=None if place is None else place.ahead + 1,
        position_exact=None if place is None else place.exact,
        starts_per_minute=guess.starts_per_minute if guess else None,
        estimated_start=guess.start if guess else None,
        estimate_basis=guess.basis if guess else "it does not wait in a queue",
    )  # fmt: skip


async def _pools(services: Services, namespace: str) -> list[PoolState]:
    found = await services.kube.request("GET", resource_path(f"apis/{naming.API_VERSION}", "workerpools", namespace))
    return [PoolState.from_object(body) for body in found["items"]]


async def _awaited(services: Services, task: Task) -> list[Awaited]:
    # At most 32, by the CRD.
    return list(await asyncio.gather(*(_one(services, task.namespace, each) for each in task.spec.depends_on)))


async def _one(services: Services, namespace: str, wanted: Dependency) -> Awaited:
    try:
        body = await services.kube.request("GET", tasks_path(namespace, wanted.name))
    except NotFound:
        try:
            row = await services.history.get_task(namespace, wanted.name)
        except Unavailable:
            row = None
        return Awaited(wanted, Phase(row.phase) if row is not None else None)
    return Awaited(wanted, Phase((body.get("status") or {}).get("phase") or Phase.PENDING))


async def _place(services: Services, task: Task) -> Place | None:
    if services.queues is None:
        return None
    try:
        return await services.queues.place(
            task.namespace, task.spec.queue, task.spec.priority, task.uid, task.status.attempt
        )
    except Unavailable as error:
        _log.warning("dependency_failed", cause=str(error), what="queue position")
        return None


async def _estimate(services: Services, task: Task, place: Place | None, now: datetime) -> Estimate:
    try:
        starts = await services.history.latest_starts(
            task.namespace, task.spec.queue, since=now - WINDOW, limit=LOOKED_AT
        )
    except Unavailable as error:
        _log.warning("dependency_failed", cause=str(error), what="throughput")
        return Estimate(None, None, "not known: the history does not answer")
    return estimate(starts, None if place is None else place.ahead, now)
