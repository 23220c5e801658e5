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
from taskflow_operator.arrays.chunk_delivery import Broker
from taskflow_operator.arrays.state import ArrayRun, Place
from taskflow_operator.arrays.summary import array_status, progress, too_many, verdict
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import RETRY_SECONDS, insist
from taskflow_operator.runtime.log_fields import trace_fields
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
"""Between two looks at what is in flight."""
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
class Surroundings:
    """What a drive works with."""

    tasks: OpenTasks
    broker: Broker
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
    settle: list[Place] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counted: Counted | None = None


class Drive:
    """Runs one array, from what Redis and the history have of it to its end. One turn after the other, each in this order:

    what events say; new chunks into the ledger and the queue; what ended into PostgreSQL; ended chunks settled; events
    acknowledged. So an operator that dies anywhere finds each item that has not ended in exactly one place.

    Args:
        uid: the Task.
        around: what it works with.
        done: acknowledges an event, by its id.
    """

    def __init__(self, uid: str, around: Surroundings, done: Callable[[str], None]) -> None:
        self._uid = uid
        self._around = around
        self._broker = around.broker
        self._done = done
        self._wish: Decision | None = None
        self._ending: End | None = None
        self._inbox: list[Event] = []
        self._changed = asyncio.Event()
        self._run: ArrayRun | None = None
        self._held_until: datetime | None = None
        self._stop_at: datetime | None = None
        self._stock_at = around.now()
        self._adrift: frozenset[Place] = frozenset()
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
        self._held_until = self._around.now() + timedelta(seconds=seconds)
        self._changed.set()

    @property
    def demand(self) -> tuple[int, int]:
        """Chunks that wait for a worker, and that one runs."""
        flights = self._run.flights.values() if self._run is not None else ()
        running = sum(flight.started for flight in flights)
        return sum(not flight.parked for flight in flights) - running, running

    def waits(self, place: Place) -> bool:
        """Whether a chunk is in the ledger, as far as is known."""
        flight = self._run.flights.get(place) if self._run is not None else None
        return flight is not None and not flight.started and not flight.parked

    async def republish(self, places: Sequence[Place] | None) -> None:
        """The messages of these chunks were lost; or of all that wait, since their list is another one now."""
        run, known = self._run, self._around.tasks.get(self._uid)
        if run is None or known is None:
            return
        wanted = list(run.flights) if places is None else places
        await self._broker.enter(known.task, run, [run.flights[place] for place in wanted if self.waits(place)])

    async def run(self) -> None:
        """Until the Task has ended, or is gone."""
        known = self._around.tasks.get(self._uid)
        if known is None:
            return
        run = self._run = await self._load(known.task)
        while (known := self._around.tasks.get(self._uid)) is not None:
            task = known.task
            work = self._fold(task, run)
            if work.counted is not None:
                await self._broker.counted(self._uid, work.counted)
                run = self._run = await self._load(task, work.counted)
                for place in work.settle:
                    run.flights.pop(place, None)
            if self._held_until is not None and self._around.now() >= self._held_until:
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

    async def _load(self, task: Task, counted: Counted | None = None) -> ArrayRun:
        items = self._around.items
        past = await insist(lambda: items.past(self._uid))
        notes = await self._broker.noted(self._uid)
        if counted is None and SOURCE in notes:
            counted = Counted.model_validate_json(notes[SOURCE])
        wanted = universe(_array(task), counted)
        if wanted is not None and (former := _array(task).failed_of) is not None:
            failed = await insist(lambda: items.failed_of(task.namespace, former))
            wanted = RangeSet() if failed is None else failed & wanted
            if failed is None:
                self._ending = End(
                    Phase.FAILED,
                    Reason.INVALID_SPEC,
                    f"array.failedOf: expected the uid of an array of namespace {task.namespace} that has ended, found {former}",
                )
        run = ArrayRun(task.spec.retry_policy, wanted, past, notes, counted)
        if counted is not None and beyond(_array(task), counted.total):
            self._ending = End(Phase.FAILED, Reason.INVALID_SPEC, beyond(_array(task), counted.total))
        await self._broker.find(task, run)
        log.info("array_loaded", **trace_fields(task), ended=run.ended, total=run.total, in_flight=len(run.flights))
        return run

    @property
    def _goes(self) -> bool:
        return self._ending is None and self._wish is not None and not isinstance(self._wish, Hold | End)

    def _fold(self, task: Task, run: ArrayRun) -> _Work:
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
                log.warning("event_forged", **trace_fields(task), event_kind=event.kind, worker=event.worker)
            self._drop(event)
        if self._ending is None:
            self._ending = self._wish if isinstance(self._wish, End) else too_many(_array(task), run)
        return work

    def _end(self, task: Task, run: ArrayRun, event: Event, work: _Work) -> None:
        draw = random.random()  # noqa: S311 - spreads retries, no secret
        try:
            fold = run.end(event, self._around.now(), draw)
        except ValueError as error:
            # Whatever it was, the chunk is over: its worker gave it up.
            log.error("event_broken", id=event.id, **trace_fields(task), error=str(error))  # noqa: TRY400
            fold = run.end(transitions.broken(event, str(error)), self._around.now(), draw)
        work.rows += fold.rows
        work.settle.append(fold.settle)
        work.events.append(event)
        work.counted = fold.counted or work.counted
        if fold.fatal is not None and self._ending is None:
            words = f"{fold.fatal.type + ': ' if fold.fatal.type else ''}{fold.fatal.message}"
            self._ending = End(Phase.FAILED, fold.fatal.reason, words)

    def _drop(self, event: Event) -> None:
        self.pending.discard(event.id)
        self._done(event.id)

    def _acknowledge(self, work: _Work) -> None:
        for event in work.events:
            self._drop(event)

    async def _control(self, run: ArrayRun) -> None:
        """Take out of the ledger what is not to be run now, and ask what runs to stop if the array ends."""
        if self._goes or self._wish is None:
            return
        await self._broker.park(self._uid, run.flights.values())
        now = self._around.now()
        if self._ending is not None and (self._stop_at is None or now >= self._stop_at):
            self._stop_at = now + timedelta(seconds=STOP_SECONDS)
            running = [flight for flight in run.flights.values() if not flight.parked]
            await self._broker.stop(self._uid, running, self._ending.reason)

    async def _hand_out(self, task: Task, run: ArrayRun) -> None:
        parked = [flight for flight in run.flights.values() if flight.parked]
        slots = self._around.slots(task.namespace, task.spec.queue)
        chunks = _array(task).parallelism or max(2 * slots, LEAST_CHUNKS)
        new = [*parked, *run.hand_out(self._around.now(), chunks)]
        if not new:
            return
        if task.status.phase not in (Phase.QUEUED, Phase.RUNNING):
            await self._broker.told(task.model_copy(update={"status": self._around.queued(task)}), EventKind.QUEUED)
        await self._broker.enter(task, run, new)

    async def _store(self, task: Task, run: ArrayRun, work: _Work) -> None:
        while work.rows:
            try:
                await self._around.items.store(self._uid, work.rows)
            except Unavailable as error:
                dependency_health.away(error)
                await asyncio.sleep(RETRY_SECONDS)
                if self._ending is None and isinstance(self._wish, End):
                    self._ending = self._wish
                await self._control(run)
            else:
                queue = metrics.queue_label(task.spec.queue)
                for row in work.rows:
                    metrics.ITEMS.labels(queue=queue, outcome=row.state.value).inc(row.last - row.first + 1)
                return

    def _over(self, run: ArrayRun) -> bool:
        if self._ending is not None:
            return all(flight.parked for flight in run.flights.values())
        return self._wish is not None and run.over

    async def _close(self, run: ArrayRun, work: _Work) -> None:
        """The end stands in the resource before the last chunks are settled and their events acknowledged."""
        known = self._around.tasks.get(self._uid)
        if known is not None:
            task, now = known.task, self._around.now()
            end = self._ending or verdict(_array(task), run)
            task = task.model_copy(update={"status": task.status.model_copy(update=_figures(run))})
            if end.phase is Phase.SUCCEEDED:
                status = transitions.completed(task, end.message, now)
            else:
                status = transitions.stopped(task, end.phase, end.reason, end.message, now)
            await self._around.closer.close(task, status)
        await self._broker.settle(self._uid, work.settle, "[]")
        await self._leave(run)
        self._acknowledge(work)

    async def _leave(self, run: ArrayRun) -> None:
        """Nothing of it may be run any more, and what Redis has of it goes."""
        await self._broker.stop(self._uid, run.flights.values(), Reason.CANCELLED)
        await self._broker.settle(self._uid, list(run.flights), "[]")
        await self._broker.forget(self._uid)
        for event in self._inbox:
            self._drop(event)

    async def _take_stock(self, task: Task, run: ArrayRun) -> None:
        now = self._around.now()
        if now >= self._stock_at and self._held_until is None:
            self._stock_at = now + timedelta(seconds=STOCK_SECONDS)
            self._adrift = await self._broker.take_stock(task, run, self._adrift)

    async def _show(self, run: ArrayRun) -> None:
        known = self._around.tasks.get(self._uid)
        if known is None:
            return
        task, now = known.task, self._around.now()
        status, phase = task.status, task.status.phase
        if isinstance(self._wish, Hold) and self._ending is None:
            wish = self._wish
            if (phase, status.message) != (wish.phase, wish.message):
                status = transitions.waiting(task, wish.phase, wish.reason, wish.message, now)
        elif self._goes and phase is not Phase.RUNNING:
            started = any(flight.started for flight in run.flights.values()) or run.ended > 0
            status = transitions.running(task, None, now) if started else self._around.queued(task)
        status = transitions.observed(task.model_copy(update={"status": status}))
        status = status.model_copy(update=_figures(run))
        if status == task.status:
            return
        after = self._around.tasks.set_status(self._uid, status)
        self._around.writer.submit(after, SHOW_SECONDS)
        if after.status.phase is not phase:
            if isinstance(self._wish, Hold):
                await self._broker.told(after, EventKind.PENDING)
            # Its deadlines count from now on.
            self._around.wake(self._uid)

    async def _pause(self, run: ArrayRun) -> None:
        now = self._around.now()
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


def _figures(run: ArrayRun) -> Mapping[str, object]:
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
