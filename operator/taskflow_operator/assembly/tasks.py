"""Assembles the controller of Tasks, in two steps: what other controllers build on, and what needs them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from taskflow_core.domain.phases import FINISHED_SELECTOR, OPEN_SELECTOR
from taskflow_core.domain.task import Isolation, Task
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry import metrics
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.history import HistoryFeature
from taskflow_operator.assembly.part import Loop, Part
from taskflow_operator.evidence.pod_observer import PodObserver
from taskflow_operator.process.leader_election import LEASE_NAME
from taskflow_operator.runtime.acknowledgements import Acknowledgements
from taskflow_operator.runtime.demand_signal import DemandSignal
from taskflow_operator.runtime.kind_watch import KindWatch
from taskflow_operator.runtime.stream_group import StreamGroup
from taskflow_operator.runtime.stream_monitor import StreamMonitor
from taskflow_operator.runtime.supervisor import run_all
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.delivery import Delivery
from taskflow_operator.tasks.dependencies import DependencyLookup
from taskflow_operator.tasks.dispatcher import Dispatcher, PoolChanges
from taskflow_operator.tasks.event_consumer import EventConsumer
from taskflow_operator.tasks.finished import Finished, count_finished
from taskflow_operator.tasks.finished_observer import FinishedObserver
from taskflow_operator.tasks.lost_workers import LostWorkers
from taskflow_operator.tasks.message_queue import MessageQueue, WarmWorkers
from taskflow_operator.tasks.observer import Observer
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.orphaned_ends import OrphanedEnds
from taskflow_operator.tasks.ports import AttemptStarter, ChunkController, Execution
from taskflow_operator.tasks.reconciler import Reconciler
from taskflow_operator.tasks.recovery import Recovery
from taskflow_operator.tasks.retention import Retention
from taskflow_operator.tasks.rules.decision import Pools
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.status import TaskStatuses
from taskflow_operator.tasks.work_queue import WorkQueue

GATHER_SECONDS = 0.01
"""How long events gather before they are applied."""


@dataclass(frozen=True)
class TaskCore:
    """What other controllers build on."""

    tasks: OpenTasks
    work_queue: WorkQueue
    demand: DemandSignal
    queue: MessageQueue
    statuses: TaskStatuses
    settlement: Settlement
    finished: Finished
    closer: Closer
    reader: StreamReader
    acknowledgements: Acknowledgements
    times: AttemptTimes
    pool_changes: PoolChanges
    retention: Retention
    finished_tasks: FinishedObserver

    @classmethod
    def build(cls, base: Foundation) -> Self:
        """Build it."""
        tasks, demand, finished = OpenTasks(), DemandSignal(), Finished()
        work_queue = WorkQueue(namespace_of=tasks.namespace_of, weight=base.settings.weight)
        settlement = Settlement(base.ledger)
        reader = StreamReader(base.redis, "cr", base.token_key)
        times = AttemptTimes(base.tracing)
        finished.subscribe(count_finished)
        finished.subscribe(times.forget)
        finished.subscribe(base.events.failed)
        retention = Retention(
            base.kube,
            base.database,
            default_seconds=base.settings.ttl_seconds_after_finished,
            per_namespace=base.settings.finished_tasks_per_namespace,
        )
        finished.subscribe(retention.finished)
        return cls(
            tasks=tasks,
            work_queue=work_queue,
            demand=demand,
            queue=MessageQueue(base.publisher, demand.notify),
            statuses=TaskStatuses(tasks, base.writer, base.settings.quiet_seconds),
            settlement=settlement,
            finished=finished,
            closer=Closer(tasks, base.writer, settlement, work_queue.add_at, finished),
            reader=reader,
            acknowledgements=Acknowledgements(reader),
            times=times,
            pool_changes=PoolChanges(tasks, work_queue),
            retention=retention,
            finished_tasks=FinishedObserver(base.kube, retention),
        )


class ArrayExecution(Execution, ChunkController, Protocol):
    """The controller of arrays, as the controller of Tasks needs it."""


@dataclass(frozen=True)
class TaskFeature:
    """The controller of Tasks."""

    part: Part
    delivery: Delivery
    reconciler: Reconciler
    streams: StreamMonitor

    @classmethod
    def build(
        cls,
        base: Foundation,
        core: TaskCore,
        history: HistoryFeature,
        pools: Pools,
        arrays: ArrayExecution,
        starters: Mapping[Isolation, AttemptStarter],
        pods: PodObserver,
    ) -> Self:
        """Build it over the other controllers."""
        delivery = _delivery(base, core, pools, starters)
        dependencies = DependencyLookup(core.tasks, base.kube, base.database)
        dispatcher = Dispatcher(core.tasks, core.work_queue, pools, dependencies, delivery, arrays)
        observer = Observer(
            core.tasks,
            base.writer,
            core.closer,
            base.kube,
            dispatch=core.work_queue.add,
            requeue=dispatcher.requeue,
        )
        watch = KindWatch(base.kube, Task.PLURAL, observer, selector=OPEN_SELECTOR)
        recovery = Recovery(core.tasks, base.ledger, core.work_queue, arrays, lease_seconds=base.settings.lease_seconds)
        base.namespaces.lost.append(recovery.data_lost)
        group = _stream_group(base, core, history, pools, arrays)
        monitor = StreamMonitor(
            base.namespaces, (group, history.group), core.tasks.namespaces, base.ledger.now_ms, base.redis
        )
        base.namespaces.opened.append(monitor.watch)
        lost_workers = LostWorkers(core.tasks, base.ledger, pods, lease_seconds=base.settings.lease_seconds)
        pods.ended.append(lost_workers.worker_ended)
        reconciler = Reconciler(
            core.tasks,
            base.ledger,
            core.work_queue,
            delivery,
            arrays,
            observer,
            recovery,
            lost_workers,
            lease_name=f"{base.settings.leader_namespace}/{LEASE_NAME}",
            namespaces=base.namespaces,
            resync_seconds=base.settings.resync_seconds,
            caught_up=group.caught_up,
            read_again=monitor.read_again,
        )
        metrics.WATCH_AGE.set_function(lambda: time.monotonic() - watch.latest)
        loops = {
            "dispatch": dispatcher.run,
            "resources": core.acknowledgements.run,
            "reconcile": lambda: run_all(reconciler.loops()),
            "lost-workers": lost_workers.run,
            "streams": lambda: run_all(monitor.loops()),
            **_finished_loops(base, core),
        }
        return cls(Part(loops, (watch,)), delivery, reconciler, monitor)


def _finished_loops(base: Foundation, core: TaskCore) -> dict[str, Loop]:
    # Not among the part's watches: nothing waits until all finished Tasks are read, and there may be many.
    watch = KindWatch(base.kube, Task.PLURAL, core.finished_tasks, selector=FINISHED_SELECTOR, name="finished-tasks")
    return {
        "retention": core.retention.run,
        "watch-finished-tasks": watch.run,
        "finished-tasks": core.finished_tasks.run,
    }


def _delivery(base: Foundation, core: TaskCore, pools: Pools, starters: Mapping[Isolation, AttemptStarter]) -> Delivery:
    return Delivery(
        core.tasks,
        core.work_queue,
        pools,
        base.ledger,
        core.queue,
        {Isolation.WORKER: WarmWorkers(core.queue, pools, base.token_key), **starters},
        core.statuses,
        core.closer,
        core.times,
    )


def _stream_group(
    base: Foundation, core: TaskCore, history: HistoryFeature, pools: Pools, arrays: ChunkController
) -> StreamGroup:
    orphaned = OrphanedEnds(base.ledger, core.settlement, base.kube, base.database, history.mirror.mirror_again)
    consumer = EventConsumer(
        core.tasks,
        core.statuses,
        core.closer,
        arrays,
        orphaned,
        pools,
        core.times,
        core.acknowledgements,
        dispatch_at=core.work_queue.add_at,
        max_lost_workers=base.settings.max_lost_workers,
    )
    return StreamGroup(core.reader, consumer.take, base.leadership.until_confirmed, gather_seconds=GATHER_SECONDS)
