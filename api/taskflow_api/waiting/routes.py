"""The route `GET .../tasks/{name}/why`, which explains why a Task waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends

from taskflow_api.http.access import may_on
from taskflow_api.http.kubernetes_auth import Caller, Resource
from taskflow_api.http.names import TASK, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices, Services
from taskflow_api.tasks.lookup import find_task
from taskflow_api.waiting.estimate import MAX_STARTS, WINDOW, Estimate, estimate
from taskflow_api.waiting.reasons import DependencyState, Explanation, PoolState, explain
from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import Dependency, Task
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import resource_path, tasks_path
from taskflow_core.ledger.queue_view import QueuePosition
from taskflow_core.telemetry.logs import get_logger

_log = get_logger(__name__)
POOLS = Resource(naming.GROUP, "workerpools")
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


class DependencyView(Model):
    """A Task that this one depends on."""

    name: str
    outcome: str
    phase: str | None
    """Null if no Task has that name."""
    met: bool


class ServingPoolView(Model):
    """A pool that serves the queue of the Task."""

    name: str
    paused: bool
    drain: bool
    slots: int
    busy_slots: int
    stalled: str
    """Why workers of the pool cannot start; empty if they can."""


class WhyView(Model):
    """Why a Task waits."""

    waiting: bool
    phase: str
    reason: str
    """A reason of Tasks, or StartingPod, PoolPaused, PoolDraining, PoolStalled, NoWorkers, WorkersStarting,
    NotQueuedYet or AllSlotsBusy."""
    message: str
    since: datetime | None
    """When the Task was queued, or created if it is not queued yet."""
    until: datetime | None
    """When the reason ends, if known."""
    depends_on: list[DependencyView]
    pools: list[ServingPoolView] | None
    """The pools that serve the queue; null if the caller may not list workerpools.taskflow.dev."""
    queue_position: int | None
    """1 is the next Task of the queue. Null if the Task is not queued or the broker is not available."""
    position_exact: bool | None
    """False: the message was not found, and the position is derived from its age."""
    starts_per_minute: float | None
    estimated_start: datetime | None
    """Null if unknown."""
    estimate_basis: str
    """The basis of the estimate, or why there is none."""


@router.get(TASK + "/why", operation_id="getWhy", summary="Explain why a Task waits")
async def get_why(
    namespace: Namespace, name: Name, services: InServices, caller: Annotated[Caller, Depends(may_on("get"))]
) -> WhyView:
    """The reason with a message, the queue position, and an estimated start from the recent throughput of the queue."""
    body, view = await find_task(services, namespace, name)
    if body is None:
        gone = Explanation(
            waiting=False, reason=view.reason, message="the resource was deleted; the values are from the history"
        )
        return _view(view.phase, gone, None, None, (), None)
    task, now = Task.from_object(body), services.now()
    pools, dependencies = await asyncio.gather(_pools(services, namespace), _dependencies(services, task))
    may_list_pools = await services.auth.allows(caller, "list", namespace, resource=POOLS)
    why = explain(task, dependencies, pools, now)
    if why.reason == "PoolStalled" and not may_list_pools:
        why = Explanation(why.waiting, why.reason, "workers of the pools that serve the queue cannot start")
    position, estimated = None, None
    if why.waiting and not task.isolated:
        position = await _position(services, task)
        estimated = await _estimate(services, task, position if why.in_queue else None, now)
    serving = [pool for pool in pools if task.spec.queue in pool.queues] if may_list_pools else None
    since = (task.status.queued_time if task.status.phase is Phase.QUEUED else None) or task.created
    return _view(
        task.status.phase or Phase.PENDING,
        why,
        since if why.waiting else None,
        position,
        dependencies,
        serving,
        estimated,
    )


def _view(
    phase: str,
    why: Explanation,
    since: datetime | None,
    position: QueuePosition | None,
    dependencies: Sequence[DependencyState],
    pools: Sequence[PoolState] | None,
    estimated: Estimate | None = None,
) -> WhyView:
    return WhyView(
        waiting=why.waiting,
        phase=phase,
        reason=why.reason,
        message=why.message,
        since=since,
        until=why.until,
        depends_on=[
            DependencyView(name=each.dependency.name, outcome=each.dependency.outcome, phase=each.phase, met=each.met)
            for each in dependencies
        ],
        pools=None if pools is None else [_pool_view(pool) for pool in pools],
        queue_position=None if position is None else position.ahead + 1,
        position_exact=None if position is None else position.exact,
        starts_per_minute=estimated.starts_per_minute if estimated else None,
        estimated_start=estimated.start if estimated else None,
        estimate_basis=estimated.basis if estimated else "the Task does not wait in a queue",
    )


def _pool_view(pool: PoolState) -> ServingPoolView:
    return ServingPoolView(
        name=pool.name,
        paused=pool.paused,
        drain=pool.drain,
        slots=pool.slots,
        busy_slots=pool.busy,
        stalled=pool.stalled,
    )


async def _pools(services: Services, namespace: str) -> list[PoolState]:
    found = await services.kube.request("GET", resource_path(f"apis/{naming.API_VERSION}", "workerpools", namespace))
    return [PoolState.from_object(body) for body in found["items"]]


async def _dependencies(services: Services, task: Task) -> list[DependencyState]:
    # The CRD allows at most 32.
    return list(await asyncio.gather(*(_dependency(services, task.namespace, each) for each in task.spec.depends_on)))


async def _dependency(services: Services, namespace: str, dependency: Dependency) -> DependencyState:
    try:
        body = await services.kube.request("GET", tasks_path(namespace, dependency.name))
    except NotFound:
        try:
            row = await services.history.get_task(namespace, dependency.name)
        except Unavailable:
            row = None
        return DependencyState(dependency, Phase(row.phase) if row is not None else None)
    return DependencyState(dependency, Phase((body.get("status") or {}).get("phase") or Phase.PENDING))


async def _position(services: Services, task: Task) -> QueuePosition | None:
    if services.queues is None:
        return None
    try:
        return await services.queues.position(
            task.namespace, task.spec.queue, task.spec.priority, task.uid, task.status.attempt
        )
    except Unavailable as error:
        _log.warning("dependency_failed", cause=str(error), what="queue position")
        return None


async def _estimate(services: Services, task: Task, position: QueuePosition | None, now: datetime) -> Estimate:
    try:
        starts = await services.history.latest_starts(
            task.namespace, task.spec.queue, since=now - WINDOW, limit=MAX_STARTS
        )
    except Unavailable as error:
        _log.warning("dependency_failed", cause=str(error), what="throughput")
        return Estimate(None, None, "unknown: the history does not answer")
    return estimate(starts, None if position is None else position.ahead, now)
