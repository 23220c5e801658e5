from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import Counted
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import ArraySpec, Task, TaskStatus
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.arrays import SOURCE
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.chunk_delivery import ChunkDelivery
from taskflow_operator.arrays.state import ArrayState, ChunkId
from taskflow_operator.arrays.summary import array_status, progress, too_many, verdict
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import RETRY_SECONDS, retry_until_available
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import Decision, End, Hold
from taskflow_operator.tasks.rules.validation import beyond

log = get_logger(__name__)
SHOW_SECONDS = 0.5
"""Between two status writes of an array."""
STOP_SECONDS = 5.0
"""A stop is asked for again until it happened, since a Redis that lost its data lost the request too."""
STOCK_SECONDS = 10.0
"""Between two looks at what is in chunk."""
LEAST_CHUNKS = 4
"""ChunkEntry out when it is not known yet how many slots there are."""


class Items(Protocol):
    """The history of items. Methods raise `Unavailable` and may be repeated."""

    async def past(self, uid: str) -> ItemHistory:
        """What has ended of an array."""

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        """The failed items of an array that has ended; None if the namespace has none of that uid."""

    async def store(self, uid: str, rows: Sequence[ItemRow]) -> None:
        """Add items that ended; raises Conflict if one has ended before."""


@dataclass(frozen=True)
class ArrayServices:
    """What a drive works with."""

    tasks: OpenTasks
    broker: ChunkDelivery
    items: Items
    writer: StatusWriter
    closer: Closer
    queued: Callable[[Task], TaskStatus]
    """Status of a Task that waits in its queue."""
    slots: Callable[[str, str], int]
    """Slots of the workers that serve a queue of a namespace."""
    wake: Callable[[str], None]
    """Has the Task looked at."""
    now: Callable[[], datetime]


@dataclass
class _Work:
    """What the events of one turn came to."""

    rows: list[ItemRow] = field(default_factory=list)
    settle: list[ChunkId] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counted: Counted | None = None


class ArrayDriver:
    """Runs one array, from what Redis and the history have of it to its end. One turn after the other, each in this order:

    what events say; new chunks into the ledger and the queue; what ended into PostgreSQL; ended chunks settled; events
    acknowledged. So an operator that dies anywhere finds each item that has not ended in exactly one place.

    Args:
        uid: the Task.
        services: what it works with.
        done: acknowledges an event, by its id.
    """

    def __init__(self, uid: str, services: ArrayServices, done: Callable[[str], None]) -> None:
        self._uid = uid
        self._services = services
        self._broker = services.broker
        self._done = done
        self._wish: Decision | None = None
        self._ending: End | None = None
        self._inbox: list[Event] = []
        self._changed = asyncio.Event()
        self._run: ArrayState | None = None
        self._held_until: datetime | None = None
        self._stop_at: datetime | None = None
        self._stock_at = services.now()
        self._adrift: frozenset[ChunkId] = frozenset()
        self.pending: set[str] = set()
        """Ids of the events that it has in its hands."""

    def decided(self, decision: Decision) -> None:
        """What is to be done with the Task."""
        self._wish = decision
        self._changed.set()

    def take(self, event: Event) -> None:
        """An event of one of its chunks."""
        self.pending.add(event.id)
        self._inbox.append(event)
        self._changed.set()

    def look(self) -> None:
        """The Task may be gone."""
        self._changed.set()

    def data_lost(self, seconds: float) -> None:
        """Redis forgot things: after that time, in which workers enter again what they run, take stock."""
        self._held_until = self._services.now() + timedelta(seconds=seconds)
        self._changed.set()

    @property
    def demand(self) -> tuple[int, int]:
        """Chunks that wait for a worker, and that one runs."""
        in_flight = self._run.in_flight.values() if self._run is not None else ()
        running = sum(chunk.started for chunk in in_flight)
        return sum(not chunk.parked for chunk in in_flight) - running, running

    def waits(self, place: ChunkId) -> bool:
        """Whether a chunk is in the ledger, as far as is known."""
        chunk = self._run.in_flight.get(place) if self._run is not None else None
        return chunk is not None and not chunk.started and not chunk.parked

    async def republish(self, places: Sequence[ChunkId] | None) -> None:
        """The messages of these chunks were lost; or of all that wait, since their list is another one now."""
        run, known = self._run, self._services.tasks.get(self._uid)
        if run is None or known is None:
            return
        wanted = list(run.in_flight) if places is None else places
        await self._broker.enter(known.task, run, [run.in_flight[place] for place in wanted if self.waits(place)])

    async def run(self) -> None:
        """Until the Task has ended, or is gone."""
        known = self._services.tasks.get(self._uid)
        if known is None:
            return
        run = self._run = await self._load(known.task)
        while (known := self._services.tasks.get(self._uid)) is not None:
            task = known.task
            work = self._fold(task, run)
            if work.counted is not None:
                await self._broker.counted(self._uid, work.counted)
                run = self._run = await self._load(task, work.counted)
                for place in work.settle:
                    run.in_flight.pop(place, None)
            if self._held_until is not None and self._services.now() >= self._held_until:
                self._held_until = None
                await self._broker.restore(task, run)
            await self._control(run)
            if self._goes and self._held_until is None:
                await self._hand_out(task, run)
            await self._store(task, run, work)
            if self._over(run):
                await self._close(run, work)
                return
            await self._broker.settle(self._uid, work.settle, run.waiting_note)
            self._acknowledge(work)
            await self._take_stock(task, run)
            await self._show(run)
            await self._pause(run)
        await self._leave(run)

    async def _load(self, task: Task, counted: Counted | None = None) -> ArrayState:
        items = self._services.items
        past = await retry_until_available(lambda: items.past(self._uid))
        notes = await self._broker.noted(self._uid)
        if counted is None and SOURCE in notes:
            counted = Counted.model_validate_json(notes[SOURCE])
        wanted = universe(_array(task), counted)
        if wanted is not None and (former := _array(task).failed_of) is not None:
            failed = await retry_until_available(lambda: items.failed_of(task.namespace, former))
            wanted = RangeSet() if failed is None else failed & wanted
            if failed is None:
                self._ending = End(
                    Phase.FAILED,
                    Reason.INVALID_SPEC,
                    f"array.failedOf: expected the uid of an array of namespace {task.namespace} that has ended, found {former}",
                )
        run = ArrayState(task.spec.retry_policy, wanted, past, notes, counted)
        if counted is not None and beyond(_array(task), counted.total):
            self._ending = End(Phase.FAILED, Reason.INVALID_SPEC, beyond(_array(task), counted.total))
        await self._broker.find(task, run)
        log.info("array_loaded", **log_fields(task), ended=run.ended, total=run.total, in_flight=len(run.in_flight))
        return run

    @property
    def _goes(self) -> bool:
        return self._ending is None and self._wish is not None and not isinstance(self._wish, Hold | End)

    def _fold(self, task: Task, run: ArrayState) -> _Work:
        events, self._inbox = self._inbox, []
        work = _Work()
        for event in events:
            token = naming.attempt_token(self._broker.token_key, event.uid, event.attempt, event.chunk)
            if event.kind is EventKind.STARTED and event.token == token:
                run.started(event)
            elif event.kind is EventKind.LOST or (event.kind is not EventKind.PROGRESS and event.token == token):
                self._end(task, run, event, work)
                continue
            elif event.token != token:
                log.warning("event_forged", **log_fields(task), event_kind=event.kind, worker=event.worker)
            self._drop(event)
        if self._ending is None:
            self._ending = self._wish if isinstance(self._wish, End) else too_many(_array(task), run)
        return work

    def _end(self, task: Task, run: ArrayState, event: Event, work: _Work) -> None:
        draw = random.random()  # noqa: S311 - spreads retries, no secret
        try:
            outcome = run.end(event, self._services.now(), draw)
        except ValueError as error:
            # Whatever it was, the chunk is over: its worker gave it up.
            log.error("event_broken", id=event.id, **log_fields(task), error=str(error))  # noqa: TRY400
            outcome = run.end(transitions.broken(event, str(error)), self._services.now(), draw)
        work.rows += outcome.rows
        work.settle.append(outcome.settle)
        work.events.append(event)
        work.counted = outcome.counted or work.counted
        if outcome.fatal is not None and self._ending is None:
            words = f"{outcome.fatal.type + ': ' if outcome.fatal.type else ''}{outcome.fatal.message}"
            self._ending = End(Phase.FAILED, outcome.fatal.reason, words)

    def _drop(self, event: Event) -> None:
        self.pending.discard(event.id)
        self._done(event.id)

    def _acknowledge(self, work: _Work) -> None:
        for event in work.events:
            self._drop(event)

    async def _control(self, run: ArrayState) -> None:
        """Take out of the ledger what is not to be run now, and ask what runs to stop if the array ends."""
        if self._goes or self._wish is None:
            return
        await self._broker.park(self._uid, run.in_flight.values())
        now = self._services.now()
        if self._ending is not None and (self._stop_at is None or now >= self._stop_at):
            self._stop_at = now + timedelta(seconds=STOP_SECONDS)
            running = [chunk for chunk in run.in_flight.values() if not chunk.parked]
            await self._broker.stop(self._uid, running, self._ending.reason)

    async def _hand_out(self, task: Task, run: ArrayState) -> None:
        parked = [chunk for chunk in run.in_flight.values() if chunk.parked]
        slots = self._services.slots(task.namespace, task.spec.queue)
        chunks = _array(task).parallelism or max(2 * slots, LEAST_CHUNKS)
        new = [*parked, *run.hand_out(self._services.now(), chunks)]
        if not new:
            return
        if task.status.phase not in (Phase.QUEUED, Phase.RUNNING):
            await self._broker.told(task.model_copy(update={"status": self._services.queued(task)}), EventKind.QUEUED)
        await self._broker.enter(task, run, new)

    async def _store(self, task: Task, run: ArrayState, work: _Work) -> None:
        while work.rows:
            try:
                await self._services.items.store(self._uid, work.rows)
            except Unavailable as error:
                dependency_health.failed(error)
                await asyncio.sleep(RETRY_SECONDS)
                if self._ending is None and isinstance(self._wish, End):
                    self._ending = self._wish
                await self._control(run)
            else:
                queue = metrics.queue_label(task.spec.queue)
                for row in work.rows:
                    metrics.ITEMS.labels(queue=queue, outcome=row.state.value).inc(row.last - row.first + 1)
                return

    def _over(self, run: ArrayState) -> bool:
        if self._ending is not None:
            return all(chunk.parked for chunk in run.in_flight.values())
        return self._wish is not None and run.over

    async def _close(self, run: ArrayState, work: _Work) -> None:
        """The end stands in the resource before the last chunks are settled and their events acknowledged."""
        known = self._services.tasks.get(self._uid)
        if known is not None:
            task, now = known.task, self._services.now()
            end = self._ending or verdict(_array(task), run)
            task = task.model_copy(update={"status": task.status.model_copy(update=_figures(run))})
            if end.phase is Phase.SUCCEEDED:
                status = transitions.completed(task, end.message, now)
            else:
                status = transitions.stopped(task, end.phase, end.reason, end.message, now)
            await self._services.closer.close(task, status)
        await self._broker.settle(self._uid, work.settle, "[]")
        await self._leave(run)
        self._acknowledge(work)

    async def _leave(self, run: ArrayState) -> None:
        """Nothing of it may be run any more, and what Redis has of it goes."""
        await self._broker.stop(self._uid, run.in_flight.values(), Reason.CANCELLED)
        await self._broker.settle(self._uid, list(run.in_flight), "[]")
        await self._broker.forget(self._uid)
        for event in self._inbox:
            self._drop(event)

    async def _take_stock(self, task: Task, run: ArrayState) -> None:
        now = self._services.now()
        if now >= self._stock_at and self._held_until is None:
            self._stock_at = now + timedelta(seconds=STOCK_SECONDS)
            self._adrift = await self._broker.take_stock(task, run, self._adrift)

    async def _show(self, run: ArrayState) -> None:
        known = self._services.tasks.get(self._uid)
        if known is None:
            return
        task, now = known.task, self._services.now()
        status, phase = task.status, task.status.phase
        if isinstance(self._wish, Hold) and self._ending is None:
            wish = self._wish
            if (phase, status.message) != (wish.phase, wish.message):
                status = transitions.waiting(task, wish.phase, wish.reason, wish.message, now)
        elif self._goes and phase is not Phase.RUNNING:
            started = any(chunk.started for chunk in run.in_flight.values()) or run.ended > 0
            status = transitions.running(task, None, now) if started else self._services.queued(task)
        status = transitions.observed(task.model_copy(update={"status": status}))
        status = status.model_copy(update=_figures(run))
        if status == task.status:
            return
        after = self._services.tasks.set_status(self._uid, status)
        self._services.writer.submit(after, SHOW_SECONDS)
        if after.status.phase is not phase:
            if isinstance(self._wish, Hold):
                await self._broker.told(after, EventKind.PENDING)
            # Its deadlines count from now on.
            self._services.wake(self._uid)

    async def _pause(self, run: ArrayState) -> None:
        now = self._services.now()
        times = [self._stock_at, self._held_until, self._stop_at if self._ending else None]
        if self._goes:
            times.append(run.next_due())
        until = min(time for time in times if time is not None)
        try:
            await asyncio.wait_for(self._changed.wait(), max((until - now).total_seconds(), 0))
        except TimeoutError:
            return
        finally:
            self._changed.clear()


def _array(task: Task) -> ArraySpec:
    assert task.spec.array is not None, "only arrays are driven"  # noqa: S101 - a mistake of ours, not of a user
    return task.spec.array


def _figures(run: ArrayState) -> Mapping[str, object]:
    return {"array": array_status(run), "progress": progress(run)}


def universe(spec: ArraySpec, counted: Counted | None) -> RangeSet | None:
    """The indices that are to be run, but for `failedOf`; None while nobody knows how many there are."""
    total = spec.count if spec.items is None else len(spec.items)
    if spec.items_from is not None:
        if counted is None:
            return None
        total = counted.total
    everything = RangeSet([(0, total - 1)]) if total else RangeSet()
    return everything if spec.indexes is None else RangeSet.parse(spec.indexes) & everything
