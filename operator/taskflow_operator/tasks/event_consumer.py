from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta

from taskflow_core.domain.events import ENDS, Advance, Event, EventKind
from taskflow_core.domain.naming import attempt_token
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.controller import OURS, Arrays
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.runtime.stream_group import consume_group
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.open_tasks import OpenTask, OpenTasks
from taskflow_operator.tasks.rules import transitions

log = get_logger(__name__)
MAX_CLOSING = 2000
ACKNOWLEDGE_SECONDS = 0.05
GATHER_SECONDS = 0.01
RETRY_SECONDS = 1.0
_REFUSALS = {EventKind.DUPLICATE: metrics.DUPLICATES, EventKind.STALE: metrics.STALE}
_WITH_TOKEN = frozenset(
    {EventKind.STARTED, EventKind.PROGRESS, EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED}
)


class EventConsumer:
    """Stream group `cr`: folds events into the status of Tasks. An event is acknowledged after what it caused is durable."""

    def __init__(
        self,
        tasks: OpenTasks,
        writer: StatusWriter,
        closer: Closer,
        ledger: OperatorLedger,
        reader: StreamReader,
        *,
        token_key: str,
        quiet_seconds: float,
        wake_at: Callable[[str, datetime | None], None],
        unknown: Callable[[Event], Awaitable[None]],
        data_lost: Callable[[str], None],
        times: AttemptTimes,
        may_read: Callable[[], Awaitable[None]],
        arrays: Arrays,
    ) -> None:
        self._tasks = tasks
        self._writer = writer
        self._closer = closer
        self._ledger = ledger
        self._reader = reader
        self._token_key = token_key
        self._quiet = quiet_seconds
        self._wake_at = wake_at
        self._unknown_end = unknown
        self._data_lost = data_lost
        self._times = times
        self._may_read = may_read
        self._arrays = arrays
        arrays.acknowledge_by(lambda event_id: self._done.append(event_id))  # noqa: PLW0108 - the list is replaced
        self._errors = ConsecutiveErrors("resources")
        self._done: list[str] = []
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._strange: dict[str, asyncio.Task[None]] = {}
        self.caught_up = 0.0
        """When everything that was in the stream had been read (monotonic seconds)."""

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        reading = consume_group(
            self._reader,
            self._take,
            self._data_lost,
            self._may_read,
            gather_seconds=GATHER_SECONDS,
            caught_up=self._note_caught_up,
        )
        return self._acknowledge_for_ever(), reading

    async def flush(self) -> None:
        """Acknowledge what is done, before the process ends."""
        done, self._done = self._done, []
        await self._reader.acknowledge(done)

    def _note_caught_up(self) -> None:
        self.caught_up = time.monotonic()

    async def _take(self, events: tuple[Event, ...], broken: tuple[str, ...]) -> None:
        self._done += broken
        done = set(self._done)
        for event in events:
            # Now and then the backlog is read again, and with it what is being applied or acknowledged at the moment.
            taken = event.id in self._closing or event.id in self._strange or self._arrays.has(event)
            if not taken and event.id not in done:
                self._apply_safely(event)
        while len(self._closing) > MAX_CLOSING:
            await asyncio.wait(list(self._closing.values()), return_when=asyncio.FIRST_COMPLETED)

    def _apply_safely(self, event: Event) -> None:
        """One event that nobody thought of must not stop the others. It stays unacknowledged, so it is tried again, later."""
        try:
            self._apply(event)
        except Exception as error:  # noqa: BLE001
            self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)
        else:
            self._errors.clear()

    def _apply(self, event: Event) -> None:
        if event.chunk is not None and event.kind in OURS and self._arrays.take(event):
            return
        known = self._tasks.get(event.uid)
        if known is None:
            if event.kind in ENDS:
                # They wait for others than the API server, so they hold up nobody however many they are.
                self._in_background(event, self._unknown(event), self._strange)
                return
            if event.kind in _REFUSALS:
                # Its Task finished before: the resource is closed, the counter is not.
                _REFUSALS[event.kind].labels(queue=metrics.UNKNOWN).inc()
        elif event.chunk is None or event.kind in _REFUSALS:
            self._told(known, event)
            return
        self._done.append(event.id)

    def _told(self, known: OpenTask, event: Event) -> None:
        if self._counts(known, event):
            known.sequence = event.sequence
            if event.kind in ENDS:
                self._in_background(event, self._end(known, event), self._closing)
                return
            self._show(known, event)
        self._done.append(event.id)

    def _in_background(
        self, event: Event, work: Coroutine[None, None, None], jobs: dict[str, asyncio.Task[None]]
    ) -> None:
        job = asyncio.create_task(self._safely(event, work))
        jobs[event.id] = job
        job.add_done_callback(lambda _: jobs.pop(event.id, None))

    async def _safely(self, event: Event, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001
            known = self._tasks.get(event.uid)
            if known is not None:
                # It counts again when it is read again.
                known.closing, known.sequence = False, min(known.sequence, event.sequence - 1)
            self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)

    def _counts(self, known: OpenTask, event: Event) -> bool:
        if event.kind in _REFUSALS:
            if _follows(known, event):
                self._tally(known, event)
            return False
        if event.kind is EventKind.QUEUED and event.attempt == known.task.status.attempt:
            self._times.note(known.task, event)
        if event.kind not in (EventKind.STARTED, EventKind.PROGRESS) and event.kind not in ENDS:
            return False
        task = known.task
        # Progress follows progress; everything else happens once in an attempt.
        again = event.kind is EventKind.PROGRESS
        newer = event.sequence >= known.sequence if again else event.sequence > known.sequence
        if event.attempt != task.status.attempt or not newer or known.closing:
            return False
        if event.kind in _WITH_TOKEN and event.token != attempt_token(self._token_key, event.uid, event.attempt):
            log.warning("event_forged", **log_fields(task), event_kind=event.kind, worker=event.worker)
            return False
        return not again or _follows(known, event)

    def _tally(self, known: OpenTask, event: Event) -> None:
        """Count a refused delivery or outcome; told with the next status, not by a write of its own."""
        status = known.task.status
        _REFUSALS[event.kind].labels(queue=metrics.queue_label(known.task.spec.queue)).inc()
        if event.kind is EventKind.DUPLICATE:
            counted = {"duplicate_deliveries": status.duplicate_deliveries + 1}
        else:
            counted = {"stale_events": status.stale_events + 1}
        # The end of the Task is being written as it is; the end of an attempt that another one follows is not the last word.
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
        self._writer.submit(self._tasks.set_status(event.uid, status), self._quiet)

    def _start(self, known: OpenTask, event: Event) -> None:
        task = known.task
        when = transitions.event_time(event)
        self._times.note(task, event)
        if task.status.phase is not Phase.RUNNING or task.status.worker != event.worker:
            after = self._tasks.set_status(task.uid, transitions.running(task, event.worker, when))
            self._writer.submit(after, self._quiet)
            seconds, start = after.spec.active_deadline_seconds, after.status.start_time
            if after.spec.cancel or (seconds is not None and start is not None):
                self._wake_at(event.uid, start + timedelta(seconds=seconds) if seconds and start else None)

    async def _end(self, known: OpenTask, event: Event) -> None:
        try:
            status = transitions.ended(known.task, event, random.random())  # noqa: S311 - spreads retries, no secret
        except ValueError as error:
            # Whatever it was, the attempt is over: its worker gave it up.
            log.error("event_broken", id=event.id, **log_fields(known.task), error=str(error))  # noqa: TRY400
            event = transitions.broken(event, str(error))
            status = transitions.ended(known.task, event, 0.0)
        self._times.note(known.task, event)
        await self._closer.close(known.task, status)
        self._done.append(event.id)

    async def _unknown(self, event: Event) -> None:
        if event.chunk is not None:
            # An array has one attempt, and that is what was settled last; what Redis has of it is of no use any more.
            await self._arrays.left(event.uid)
            event = event.model_copy(update={"attempt": 1})
        await self._unknown_end(event)
        self._done.append(event.id)

    async def _acknowledge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(ACKNOWLEDGE_SECONDS)
            self._errors.check()
            done, self._done = self._done, []
            try:
                await self._reader.acknowledge(done)
            except Unavailable as error:
                dependency_health.failed(error)
                self._done = done + self._done
                await asyncio.sleep(RETRY_SECONDS)


def _follows(known: OpenTask, event: Event) -> bool:
    """Whether an event of a kind that may come many times is a new one; after an outage the backlog is read again."""
    position = tuple(int(part) for part in event.id.split("-"))
    if position <= known.position:
        return False
    known.position = position
    return True
