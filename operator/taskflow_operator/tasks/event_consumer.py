"""Consumer group `cr` of the event streams: applies what workers report to the status of Tasks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta

from taskflow_core.domain.event_input import Refusal
from taskflow_core.domain.events import ENDS, Advance, EntryId, Event, EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime.acknowledgements import Acknowledgements
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.open_tasks import OpenTask, OpenTasks
from taskflow_operator.tasks.orphaned_ends import OrphanedEnds
from taskflow_operator.tasks.ports import ChunkController
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import Pools
from taskflow_operator.tasks.rules.unknown_handler import PutBack, put_back
from taskflow_operator.tasks.status import TaskStatuses

log = get_logger(__name__)
MAX_CLOSING = 2000
MAX_ORPHANED = 5000
"""Ends of a namespace without an open Task that are handled at a time; others are read again later."""
_REFUSALS = {EventKind.DUPLICATE: metrics.DUPLICATES, EventKind.STALE: metrics.STALE}
MAX_TRIES = 3
"""Times that an event is applied which raises an error that nobody expected."""


class EventConsumer:
    """Applies events. An event is acknowledged after its effect is durable.

    Args:
        tasks: the open Tasks.
        statuses: where a new status is shown.
        closer: writes ends.
        arrays: handles the events of chunks.
        orphaned_ends: handles ends whose Task is not open.
        pools: which of them are being rolled out.
        times: measures waiting and running.
        acknowledgements: of the consumer group.
        dispatch_at: has a Task looked at.
        max_lost_workers: a Task ends when so many different workers in a row died of it.
        now: the time.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        statuses: TaskStatuses,
        closer: Closer,
        arrays: ChunkController,
        orphaned_ends: OrphanedEnds,
        pools: Pools,
        times: AttemptTimes,
        acknowledgements: Acknowledgements,
        *,
        dispatch_at: Callable[[str, datetime | None], None],
        max_lost_workers: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._statuses = statuses
        self._closer = closer
        self._arrays = arrays
        self._orphaned_ends = orphaned_ends
        self._pools = pools
        self._times = times
        self._acknowledgements = acknowledgements
        self._dispatch_at = dispatch_at
        self._max_lost_workers = max_lost_workers
        self._now = now
        self._closing: dict[EntryId, asyncio.Task[None]] = {}
        self._orphaned: dict[EntryId, asyncio.Task[None]] = {}
        self._orphaned_attempts: dict[str, set[tuple[str, int, int | None]]] = {}
        """Attempts whose ends these are, by namespace."""
        self._tries: dict[EntryId, int] = {}

    async def take(self, events: tuple[Event, ...], refused: tuple[EntryId, ...]) -> None:
        """Apply a batch.

        Args:
            events: those of a stream in its order; some may have been taken before.
            refused: entries that are no events.
        """
        self._acknowledgements.extend(refused)
        done = self._acknowledgements.pending()
        for event in events:
            # The backlog is read again from time to time, and with it events that are being applied or acknowledged.
            taken = event.entry in self._closing or event.entry in self._orphaned or self._arrays.in_hand(event)
            if not taken and event.entry not in done:
                self._apply_safely(event)
        while len(self._closing) > MAX_CLOSING:
            await asyncio.wait(list(self._closing.values()), return_when=asyncio.FIRST_COMPLETED)

    def _apply_safely(self, event: Event) -> None:
        """One unexpected event must not stop the others."""
        try:
            self._apply(event)
        except Exception as error:  # noqa: BLE001
            self._failed(event, error)

    def _failed(self, event: Event, error: Exception) -> None:
        """The event stays unacknowledged, so it is applied again later, but not for ever: it may be at fault itself.
        Then its attempt is found without an end, and given up.
        """
        metrics.ERRORS.labels(kind="resources").inc()
        log.error(
            "unexpected", uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id, exc_info=error
        )
        tries = self._tries[event.entry] = self._tries.get(event.entry, 0) + 1
        if tries >= MAX_TRIES:
            metrics.EVENTS_REFUSED.labels(consumer="cr", reason=Refusal.UNEXPECTED.value).inc()
            self._done(event)

    def _done(self, event: Event) -> None:
        self._tries.pop(event.entry, None)
        self._acknowledgements.add(event.entry)

    def _apply(self, event: Event) -> None:
        if self._tasks.namespace_of(event.uid) not in ("", event.namespace):
            # Its token says otherwise, so only a mistake of ours leads here.
            metrics.EVENTS_REFUSED.labels(consumer="cr", reason=Refusal.TASK.value).inc()
            self._done(event)
            return
        if self._arrays.owns(event):
            self._arrays.take(event)
            return
        known = self._tasks.get(event.uid)
        if known is None:
            if event.kind in ENDS:
                self._take_orphaned(event)
                return
            if event.kind in _REFUSALS:
                # Its Task finished before: the resource is closed, the counter is not.
                _REFUSALS[event.kind].labels(queue=metrics.UNKNOWN).inc()
        elif event.chunk is None or event.kind in _REFUSALS:
            before = known.sequence, known.position
            try:
                self._apply_to(known, event)
            except Exception:
                # It counts again when it is read again.
                known.sequence, known.position = before
                raise
            return
        self._done(event)

    def _take_orphaned(self, event: Event) -> None:
        """These wait for others than the API server, so they hold up nobody. A worker may say the end of one attempt as
        often as it likes, so it is handled once at a time.
        """
        attempts = self._orphaned_attempts.setdefault(event.namespace, set())
        attempt = event.uid, event.attempt, event.chunk
        if attempt in attempts:
            self._done(event)
        elif len(attempts) < MAX_ORPHANED:
            attempts.add(attempt)
            # What it says of the end does not matter any more, and may be long.
            short = event.model_copy(update={"payload": {}})
            self._in_background(short, self._orphan(short), self._orphaned)

    def _apply_to(self, known: OpenTask, event: Event) -> None:
        if self._counts(known, event):
            known.sequence = event.sequence
            if event.kind in ENDS:
                self._in_background(event, self._end(known, event), self._closing)
                return
            self._show(known, event)
        self._done(event)

    def _in_background(
        self, event: Event, work: Coroutine[None, None, None], running: dict[EntryId, asyncio.Task[None]]
    ) -> None:
        task = asyncio.create_task(self._safely(event, work))
        running[event.entry] = task
        task.add_done_callback(lambda _: running.pop(event.entry, None))

    async def _safely(self, event: Event, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001
            known = self._tasks.get(event.uid)
            if known is not None:
                # It counts again when it is read again.
                known.sequence = min(known.sequence, event.sequence - 1)
            self._failed(event, error)

    def _counts(self, known: OpenTask, event: Event) -> bool:
        """Whether the event changes the status: it is of the current attempt, and new."""
        if event.kind in _REFUSALS:
            if _follows(known, event):
                self._count_refusal(known, event)
            return False
        if event.kind not in (EventKind.STARTED, EventKind.PROGRESS) and event.kind not in ENDS:
            return False
        task = known.task
        # Progress may come many times in an attempt; everything else happens once.
        repeats = event.kind is EventKind.PROGRESS
        newer = event.sequence >= known.sequence if repeats else event.sequence > known.sequence
        if event.attempt != task.status.attempt or not newer or known.closing:
            return False
        return not repeats or _follows(known, event)

    def _count_refusal(self, known: OpenTask, event: Event) -> None:
        """Count a refused delivery or outcome. It is shown with the next status, not by a write of its own."""
        status = known.task.status
        _REFUSALS[event.kind].labels(queue=metrics.queue_label(known.task.spec.queue)).inc()
        if event.kind is EventKind.DUPLICATE:
            counted = {"duplicate_deliveries": status.duplicate_deliveries + 1}
        else:
            counted = {"stale_events": status.stale_events + 1}
        # The end of a Task is being written as it is. The end of an attempt is followed by further writes.
        if not (known.closing and known.task.finished):
            self._tasks.set_status(event.uid, status.model_copy(update=counted))

    def _show(self, known: OpenTask, event: Event) -> None:
        if event.kind is EventKind.STARTED:
            self._start(known, event)
            return
        self._statuses.write(event.uid, transitions.advanced(known.task, Advance.model_validate(event.payload)))

    def _start(self, known: OpenTask, event: Event) -> None:
        task = known.task
        when = transitions.event_time(event)
        self._times.note(task, event)
        if task.status.phase is Phase.RUNNING and task.status.worker == event.worker:
            return
        after = self._statuses.write(task.uid, transitions.running(task, event.worker, when))
        seconds, start = after.spec.active_deadline_seconds, after.status.start_time
        if after.cancelled or (seconds is not None and start is not None):
            self._dispatch_at(event.uid, start + timedelta(seconds=seconds) if seconds and start else None)

    async def _end(self, known: OpenTask, event: Event) -> None:
        draw = random.random()  # noqa: S311 - spreads retries, no secret
        back = self._put_back(known.task, event)
        status = transitions.ended(known.task, event, draw, back, max_lost_workers=self._max_lost_workers)
        self._times.note(known.task, event)
        await self._closer.close(known.task, status)
        self._done(event)

    def _put_back(self, task: Task, event: Event) -> PutBack | None:
        if event.kind is not EventKind.FAILED or event.payload.get("reason") != Reason.UNKNOWN_HANDLER:
            return None
        rollout = self._pools.rollout(task.namespace, task.spec.queue)
        return put_back(task.spec.handler, event.worker, task.status.unknown_handler_time, rollout, self._now())

    async def _orphan(self, event: Event) -> None:
        attempt = event.uid, event.attempt, event.chunk
        try:
            if event.chunk is not None:
                # An array has one attempt, which was settled last. What Redis still has of it is of no use.
                await self._arrays.clean_up(event.namespace, event.uid)
                event = event.model_copy(update={"attempt": 1})
            await self._orphaned_ends.close(event)
            self._done(event)
        finally:
            self._orphaned_attempts[event.namespace].discard(attempt)


def _follows(known: OpenTask, event: Event) -> bool:
    """Whether an event of a kind that may come many times is a new one; after an outage the backlog is read again."""
    position = tuple(int(part) for part in event.id.split("-"))
    if position <= known.position:
        return False
    known.position = position
    return True
