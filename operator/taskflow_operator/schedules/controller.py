"""The controller of TaskSchedules: creates what is due, then writes the cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from taskflow_core.domain import naming
from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.task import Task
from taskflow_core.domain.taskschedule import TaskSchedule, TaskScheduleStatus
from taskflow_core.errors import Conflict, Invalid, NotFound, TaskflowError
from taskflow_core.kube.client import JSON_PATCH, Requests, failed_test, resource_path, status_patch, tasks_path
from taskflow_core.store.schedules import RunRow
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors, cancel_all
from taskflow_operator.schedules.children import Children
from taskflow_operator.schedules.creation import RunCreator
from taskflow_operator.schedules.known import Existing, KnownSchedule, KnownSchedules, Made
from taskflow_operator.schedules.notices import ScheduleNotices
from taskflow_operator.schedules.observer import SCHEDULES
from taskflow_operator.schedules.recorder import RunRecorder
from taskflow_operator.schedules.rows import found_rows, schedule_row, unrun_row
from taskflow_operator.schedules.rules.plan import plan
from taskflow_operator.schedules.rules.runs import Child, Plan, Skipped
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
AT_ONCE = 16
"""Schedules that are handled at a time."""
ROUNDS = 5
"""Plans of one pass: a further one follows when a run could not be created."""
QUIET_SECONDS = 1.0
"""Between two writes of a status of which only what is shown changed, not what was decided."""
UNSEEN_SECONDS = 30.0
"""A Task that the watch has not shown for so long is asked for."""
LONGEST_RETRY_SECONDS = 30.0
MAX_SKEW_SECONDS = 5.0
CLOCK_SKEW = "ClockSkew"


@dataclass(frozen=True)
class ScheduleServices:
    """What the controller uses."""

    kube: Requests
    queue: WorkQueue
    creator: RunCreator
    recorder: RunRecorder
    notices: ScheduleNotices
    turn: Callable[[], Awaitable[None]]
    """Waits until another status may be written."""
    listed: Callable[[], bool]
    """Whether the finished Tasks that there were at the start are known."""
    clock_skew: Callable[[], float]
    """Seconds that the API server's clock and this machine's are apart."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic


class ScheduleController:
    """Handles schedules whose time has come, or of which something changed. Idle ones cost nothing.

    The order makes it safe to die at any point: first the Tasks, by names that follow from their ticks, then the
    cursor. Until that is written, the same ticks are due again, and their Tasks are found.

    Args:
        known: the schedules.
        children: their Tasks.
        services: what it uses.
    """

    def __init__(self, known: KnownSchedules, children: Children, services: ScheduleServices) -> None:
        self._known = known
        self._children = children
        self._use = services
        self._busy: set[str] = set()
        self._again: set[str] = set()
        """Busy ones of which something changed meanwhile."""
        self._jobs: set[asyncio.Task[None]] = set()
        self._errors = ConsecutiveErrors("schedules")

    def gone(self, known: KnownSchedule) -> None:
        """A schedule was deleted."""
        uid = known.schedule.uid
        self._use.recorder.deleted(uid)
        self._use.notices.forget(uid)

    def changed(self, uid: str) -> None:
        """Something of a schedule or its Tasks changed."""
        if self._known.get(uid) is not None:
            self._use.queue.add(uid)

    async def run(self) -> None:
        """Handle schedules until cancelled."""
        self._use.creator.begin()
        slots = asyncio.Semaphore(AT_ONCE)
        try:
            while True:
                self._errors.check()
                await slots.acquire()
                (uid,) = await self._use.queue.take(1)
                if uid in self._busy:
                    self._again.add(uid)
                    slots.release()
                    continue
                self._busy.add(uid)
                job = asyncio.create_task(self._handle(uid, slots))
                self._jobs.add(job)
                job.add_done_callback(self._jobs.discard)
        finally:
            await cancel_all(self._jobs)
            self._busy.clear()

    async def _handle(self, uid: str, slots: asyncio.Semaphore) -> None:
        known = self._known.get(uid)
        try:
            if known is not None and not known.schedule.deleting:
                known.wake_at = None
                with metrics.RECONCILE.labels(kind="schedule").time():
                    await self._pass(known)
        except TaskflowError as error:
            dependency_health.failed(error)
            self._retry(known)
        except Exception as error:  # noqa: BLE001 - one schedule must not stop the others
            self._errors.record(error, uid=uid)
            self._retry(known)
        else:
            self._errors.clear()
        finally:
            self._busy.discard(uid)
            slots.release()
            if uid in self._again:
                self._again.discard(uid)
                self.changed(uid)

    def _retry(self, known: KnownSchedule | None) -> None:
        if known is None:
            return
        known.failures += 1
        self._wake(known, self._use.now() + timedelta(seconds=min(2.0**known.failures / 2, LONGEST_RETRY_SECONDS)))

    def _wake(self, known: KnownSchedule, when: datetime | None) -> None:
        if when is not None and (known.wake_at is None or when < known.wake_at):
            known.wake_at = when
            self._use.queue.add_at(known.schedule.uid, when)

    async def _pass(self, known: KnownSchedule) -> None:
        schedule, now = known.schedule, self._use.now()
        if not self._use.listed() and any(each.running for each in schedule.status.backfills):
            # Whether their runs have ended is not known yet.
            self._wake(known, now + timedelta(seconds=1))
            return
        self._children.trim(schedule.uid)
        await self._ask_for_unseen(known)
        existing, planned = await self._planned(known, now)
        for name in planned.cancel:
            if name in existing:
                await self._cancel(known, existing[name])
        status = self._with_skew(schedule, planned.status, now)
        rows = [*known.rows, *found_rows(schedule, status, existing.values(), now)]
        rows += [unrun_row(schedule, each, now) for each in planned.skipped]
        await self._record(known, rows)
        if status != schedule.status:
            await self._write(known, status, planned, now)
        known.failures = 0
        self._wake(known, planned.wake_at)

    async def _planned(self, known: KnownSchedule, now: datetime) -> tuple[dict[str, Existing], Plan]:
        """The plan whose Tasks exist, and all Tasks."""
        schedule = known.schedule
        for name, refusal in list(known.refused.items()):
            if refusal.retry_at <= now:
                del known.refused[name]
        for _ in range(ROUNDS):
            existing = self._children.of(known)
            planned = plan(schedule, [each.child for each in existing.values()], now, known.refused)
            if not planned.runs or await self._use.creator.create(known, planned.runs):
                return self._children.of(known), planned
        raise Conflict(f"TaskSchedule {schedule.namespace}/{schedule.name}: plans of {ROUNDS} rounds could not be met")

    async def _ask_for_unseen(self, known: KnownSchedule) -> None:
        """The watch may have missed that a Task came and went."""
        clock = self._use.clock()
        self._children.of(known)
        for name, made in list(known.made.items()):
            if not made.child.open or clock - made.at < UNSEEN_SECONDS:
                continue
            del known.made[name]
            try:
                body = await self._use.kube.request("GET", tasks_path(known.schedule.namespace, name))
            except NotFound:
                continue
            task = Task.from_object(body)
            if task.uid == made.uid and not task.finished:
                known.made[name] = Made(Child.of(task), task.uid, clock)
        if any(made.child.open for made in known.made.values()):
            self._wake(known, self._use.now() + timedelta(seconds=UNSEEN_SECONDS))

    async def _cancel(self, known: KnownSchedule, each: Existing) -> None:
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": each.uid},
            {"op": "add", "path": "/spec/cancel", "value": True},
        ]
        path = tasks_path(known.schedule.namespace, each.child.name)
        try:
            await self._use.kube.request("PATCH", path, patch, content_type=JSON_PATCH)
        except (NotFound, Invalid) as error:
            # It is gone, which the watch tells as well.
            log.info("run_not_cancelled", name=each.child.name, uid=each.uid, error=str(error))
        else:
            log.info("run_cancelled", namespace=known.schedule.namespace, name=each.child.name, uid=each.uid)
        known.cancelled.add(each.uid)

    def _with_skew(self, schedule: TaskSchedule, status: TaskScheduleStatus, now: datetime) -> TaskScheduleStatus:
        """With the condition `ClockSkew`, once the clocks differ or did before."""
        skew = self._use.clock_skew()
        apart = abs(skew) > MAX_SKEW_SECONDS
        if not apart and status.condition(CLOCK_SKEW) is None:
            return status
        former = status.condition(CLOCK_SKEW)
        if former is not None and (former.status == "True") == apart:
            # The seconds change all the time.
            return status
        way = "ahead of" if skew > 0 else "behind"
        message = f"the operator's clock is {abs(skew):.0f} s {way} the API server's" if apart else ""
        conditions = set_condition(
            status.conditions,
            CLOCK_SKEW,
            status=apart,
            reason="ClocksDiffer" if apart else "ClocksAgree",
            message=message,
            generation=schedule.generation,
            now=now,
        )
        return status.model_copy(update={"conditions": conditions})

    async def _record(self, known: KnownSchedule, rows: list[RunRow]) -> None:
        schedule = known.schedule
        if rows or known.stored_generation != schedule.generation:
            distinct = {(row.tick, row.token): row for row in rows}
            await self._use.recorder.record(schedule_row(schedule), list(distinct.values()))
            known.stored_generation = schedule.generation

    async def _write(self, known: KnownSchedule, status: TaskScheduleStatus, planned: Plan, now: datetime) -> None:
        schedule = known.schedule
        pause = known.wrote_at + QUIET_SECONDS - self._use.clock()
        if pause > 0 and _decided(status) == _decided(schedule.status):
            self._wake(known, now + timedelta(seconds=pause))
            return
        await self._use.turn()
        path = resource_path(SCHEDULES, TaskSchedule.PLURAL, schedule.namespace, schedule.name) + "/status"
        patch = status_patch(schedule.uid, status.to_object(), schedule.resource_version)
        params = {"fieldManager": naming.FIELD_MANAGER}
        try:
            answer = await self._use.kube.request("PATCH", path, patch, content_type=JSON_PATCH, params=params)
        except NotFound:
            return
        except Invalid as error:
            if not failed_test(error):
                raise
            # It changed meanwhile: what the watch shows next is planned anew. The same ticks have the same names.
            metrics.STATUS_WRITES.labels(result="postponed").inc()
            if known.schedule is schedule:
                self._wake(known, now + timedelta(seconds=QUIET_SECONDS))
            else:
                self.changed(schedule.uid)
            return
        metrics.STATUS_WRITES.labels(result="done").inc()
        newest = TaskSchedule.from_object(answer)
        self._count(schedule, planned.skipped)
        self._use.notices.status_changed(schedule, status)
        if int(known.schedule.resource_version) > int(newest.resource_version):
            # The watch was faster, and has a later change.
            newest = known.schedule
        known.written(newest, self._use.clock())

    def _count(self, schedule: TaskSchedule, skipped: Iterable[Skipped]) -> None:
        ticks = list(skipped)
        for each in ticks:
            metrics.SCHEDULE_TICKS.labels(namespace=schedule.namespace, outcome=each.outcome.value).inc()
        if ticks:
            self._use.notices.did_not_run(schedule, ticks)


def _decided(status: TaskScheduleStatus) -> TaskScheduleStatus:
    """The status without what only shows how children are."""
    shown = {"active": (), "active_count": 0, "last_outcome": None}
    return status.model_copy(update=shown)
