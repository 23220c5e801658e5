"""Consumer group `cr` of the event stream: applies what workers report to the status of Tasks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta

from taskflow_core.domain.events import ENDS, Advance, Event, EventKind
from taskflow_core.domain.naming import attempt_token
from taskflow_core.domain.phases import Phase
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime.acknowledgements import Acknowledgements
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.stream_group import consume_group
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.open_tasks import OpenTask, OpenTasks
from taskflow_operator.tasks.orphaned_ends import OrphanedEnds
from taskflow_operator.tasks.ports import ChunkController
from taskflow_operator.tasks.recovery import Recovery
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.status import TaskStatuses

log = get_logger(__name__)
MAX_CLOSING = 2000
GATHER_SECONDS = 0.01
_REFUSALS = {EventKind.DUPLICATE: metrics.DUPLICATES, EventKind.STALE: metrics.STALE}
_WITH_TOKEN = frozenset(
    {EventKind.STARTED, EventKind.PROGRESS, EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED}
)


class EventConsumer:
    """Applies events. An event is acknowledged after its effect is durable.

    Args:
        tasks: the open Tasks.
        statuses: where a new status is shown.
        closer: writes ends.
        arrays: handles the events of chunks.
        orphaned_ends: handles ends whose Task is not open.
        recovery: called when events may be missing.
        times: measures waiting and running.
        reader: the consumer group.
        acknowledgements: of the consumer group.
        token_key: from which the token of each attempt is derived.
        dispatch_at: has a Task looked at.
        may_read: waits while this process is not sure to be the leader.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        statuses: TaskStatuses,
        closer: Closer,
        arrays: ChunkController,
        orphaned_ends: OrphanedEnds,
        recovery: Recovery,
        times: AttemptTimes,
        reader: StreamReader,
        acknowledgements: Acknowledgements,
        *,
        token_key: str,
        dispatch_at: Callable[[str, datetime | None], None],
        may_read: Callable[[], Awaitable[None]],
    ) -> None:
        self._tasks = tasks
        self._statuses = statuses
        self._closer = closer
        self._arrays = arrays
        self._orphaned_ends = orphaned_ends
        self._recovery = recovery
        self._times = times
        self._reader = reader
        self._acknowledgements = acknowledgements
        self._token_key = token_key
        self._dispatch_at = dispatch_at
        self._may_read = may_read
        self._errors = ConsecutiveErrors("resources")
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._orphaned: dict[str, asyncio.Task[None]] = {}
        self._caught_up = 0.0

    def caught_up(self) -> float:
        """When everything that was in the stream had been read (monotonic seconds); 0 if that never happened."""
        return self._caught_up

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        reading = consume_group(
            self._reader,
            self.take,
            self._recovery.data_lost,
            self._may_read,
            gather_seconds=GATHER_SECONDS,
            caught_up=self._note_caught_up,
        )
        return self._acknowledgements.run(), reading

    def _note_caught_up(self) -> None:
        self._caught_up = time.monotonic()

    async def take(self, events: tuple[Event, ...], broken: tuple[str, ...]) -> None:
        """Apply a batch.

        Args:
            events: in the order of the stream; some may have been taken before.
            broken: ids of entries that are no events.
        """
        self._errors.check()
        self._acknowledgements.extend(broken)
        done = self._acknowledgements.pending()
        for event in events:
            # The backlog is read again from time to time, and with it events that are being applied or acknowledged.
            taken = event.id in self._closing or event.id in self._orphaned or self._arrays.in_hand(event)
            if not taken and event.id not in done:
                self._apply_safely(event)
        while len(self._closing) > MAX_CLOSING:
            await asyncio.wait(list(self._closing.values()), return_when=asyncio.FIRST_COMPLETED)

    def _apply_safely(self, event: Event) -> None:
        """One unexpected event must not stop the others. It stays unacknowledged, so it is applied again later."""
        try:
            self._apply(event)
        except Exception as error:  # noqa: BLE001
            self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)
        else:
            self._errors.clear()

    def _apply(self, event: Event) -> None:
        if self._arrays.owns(event):
            self._arrays.take(event)
            return
        known = self._tasks.get(event.uid)
        if known is None:
            if event.kind in ENDS:
                # These wait for others than the API server, so they hold up nobody, however many they are.
                self._in_background(event, self._orphan(event), self._orphaned)
                return
            if event.kind in _REFUSALS:
                # Its Task finished before: the resource is closed, the counter is not.
                _REFUSALS[event.kind].labels(queue=metrics.UNKNOWN).inc()
        elif event.chunk is None or event.kind in _REFUSALS:
            self._apply_to(known, event)
            return
        self._acknowledgements.add(event.id)

    def _apply_to(self, known: OpenTask, event: Event) -> None:
        if self._counts(known, event):
            known.sequence = event.sequence
            if event.kind in ENDS:
                self._in_background(event, self._end(known, event), self._closing)
                return
            self._show(known, event)
        self._acknowledgements.add(event.id)

    def _in_background(
        self, event: Event, work: Coroutine[None, None, None], running: dict[str, asyncio.Task[None]]
    ) -> None:
        task = asyncio.create_task(self._safely(event, work))
        running[event.id] = task
        task.add_done_callback(lambda _: running.pop(event.id, None))

    async def _safely(self, event: Event, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001
            known = self._tasks.get(event.uid)
            if known is not None:
                # It counts again when it is read again.
                known.sequence = min(known.sequence, event.sequence - 1)
            self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)

    def _counts(self, known: OpenTask, event: Event) -> bool:
        """Whether the event changes the status: it is of the current attempt, new, and from the worker that may send
        it.
        """
        if event.kind in _REFUSALS:
            if _follows(known, event):
                self._count_refusal(known, event)
            return False
        if event.kind is EventKind.QUEUED and event.attempt == known.task.status.attempt:
            self._times.note(known.task, event)
        if event.kind not in (EventKind.STARTED, EventKind.PROGRESS) and event.kind not in ENDS:
            return False
        task = known.task
        # Progress may come many times in an attempt; everything else happens once.
        repeats = event.kind is EventKind.PROGRESS
        newer = event.sequence >= known.sequence if repeats else event.sequence > known.sequence
        if event.attempt != task.status.attempt or not newer or known.closing:
            return False
        if event.kind in _WITH_TOKEN and event.token != attempt_token(self._token_key, event.uid, event.attempt):
            log.warning("event_forged", **log_fields(task), event_kind=event.kind, worker=event.worker)
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
        try:
            status = transitions.advanced(known.task, Advance.model_validate(event.payload))
        except ValueError as error:
            log.error("event_broken", id=event.id, **log_fields(known.task), error=str(error))  # noqa: TRY400
            return
        self._statuses.write(event.uid, status)

    def _start(self, known: OpenTask, event: Event) -> None:
        task = known.task
        when = transitions.event_time(event)
        self._times.note(task, event)
        if task.status.phase is Phase.RUNNING and task.status.worker == event.worker:
            return
        after = self._statuses.write(task.uid, transitions.running(task, event.worker, when))
        seconds, start = after.spec.active_deadline_seconds, after.status.start_time
        if after.spec.cancel or (seconds is not None and start is not None):
            self._dispatch_at(event.uid, start + timedelta(seconds=seconds) if seconds and start else None)

    async def _end(self, known: OpenTask, event: Event) -> None:
        try:
            status = transitions.ended(known.task, event, random.random())  # noqa: S311 - spreads retries, no secret
        except ValueError as error:
            # Whatever it says, the attempt is over: its worker gave it up.
            log.error("event_broken", id=event.id, **log_fields(known.task), error=str(error))  # noqa: TRY400
            event = transitions.broken(event, str(error))
            status = transitions.ended(known.task, event, 0.0)
        self._times.note(known.task, event)
        await self._closer.close(known.task, status)
        self._acknowledgements.add(event.id)

    async def _orphan(self, event: Event) -> None:
        if event.chunk is not None:
            # An array has one attempt, which was settled last. What Redis still has of it is of no use.
            await self._arrays.clean_up(event.uid)
            event = event.model_copy(update={"attempt": 1})
        await self._orphaned_ends.close(event)
        self._acknowledgements.add(event.id)


def _follows(known: OpenTask, event: Event) -> bool:
    """Whether an event of a kind that may come many times is a new one; after an outage the backlog is read again."""
    position = tuple(int(part) for part in event.id.split("-"))
    if position <= known.position:
        return False
    known.position = position
    return True
