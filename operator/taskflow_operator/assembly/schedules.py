"""Assembles the controller of TaskSchedules."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.telemetry import metrics
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.history import HistoryFeature
from taskflow_operator.assembly.part import Part
from taskflow_operator.assembly.tasks import TaskCore
from taskflow_operator.history.database import Database
from taskflow_operator.runtime.kind_watch import KindWatch
from taskflow_operator.runtime.stream_group import StreamGroup
from taskflow_operator.schedules.children import Children
from taskflow_operator.schedules.controller import ScheduleController, ScheduleServices
from taskflow_operator.schedules.creation import RunCreator
from taskflow_operator.schedules.known import KnownSchedules
from taskflow_operator.schedules.metrics import ScheduleMetrics
from taskflow_operator.schedules.notices import ScheduleNotices
from taskflow_operator.schedules.observer import ScheduleObserver
from taskflow_operator.schedules.recorder import RunRecorder
from taskflow_operator.schedules.rules.retention import is_needed
from taskflow_operator.tasks.work_queue import WorkQueue


class CaughtUpHistory:
    """The history, once it has what the streams of a namespace had when this process began.

    Args:
        database: the history.
        group: reads the streams for it.
        namespaces: those that have streams.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        database: Database,
        group: StreamGroup,
        namespaces: Namespaces,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._group = group
        self._namespaces = namespaces
        self._began = clock()

    async def ran(self, namespace: str, names: Collection[str]) -> dict[str, str]:
        """Uids of the Tasks of these names that exist or existed, by name.

        Raises:
            Unavailable: the database does not answer, or lacks what happened before this process began.
        """
        if namespace in self._namespaces.known and self._group.caught_up(namespace) < self._began:
            self._group.ready(self._group.reader.streams_of(namespace))
            raise Unavailable("the history is still reading what happened before", Dependency.POSTGRES)
        return await self._database.ran(namespace, names)

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        """See `Database.outcome`."""
        return await self._database.outcome(namespace, name)


@dataclass(frozen=True)
class ScheduleFeature:
    """TaskSchedules."""

    part: Part

    @classmethod
    def build(cls, base: Foundation, core: TaskCore, history: HistoryFeature) -> Self:
        """Build it. Its watch has to be listed before that of Tasks."""
        known = KnownSchedules()
        queue = WorkQueue(namespace_of=known.namespace_of, weight=base.settings.weight)
        children = Children(core.tasks, known, expire=core.retention.expire, changed=queue.add)
        recorder = RunRecorder(base.database)
        services = ScheduleServices(
            kube=base.kube,
            queue=queue,
            creator=RunCreator(base.kube, CaughtUpHistory(base.database, history.group, base.namespaces)),
            recorder=recorder,
            notices=ScheduleNotices(base.events),
            turn=base.writer.turn,
            listed=lambda: core.finished_tasks.listed,
            clock_skew=lambda: base.kube.clock.skew,
        )
        controller = ScheduleController(known, children, services)

        def needed(task: Task) -> bool:
            owner = None if task.owner is None else known.get(task.owner.uid)
            return owner is not None and is_needed(owner.schedule, task)

        core.tasks.added.append(children.added)
        core.finished.subscribe(children.ended)
        core.finished_tasks.told.append(children)
        core.retention.needed.append(needed)
        observer = ScheduleObserver(known, base.kube, changed=queue.add, gone=controller.gone)
        watch = KindWatch(base.kube, TaskSchedule.PLURAL, observer)
        metrics.CLOCK_SKEW.set_function(lambda: base.kube.clock.skew)
        part = Part(
            {"schedules": controller.run, "schedule-runs": recorder.run},
            watches=(watch,),
            collectors=(ScheduleMetrics(known),),
        )
        return cls(part)
