"""Runs one array, from what Redis and the history have of it to its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from taskflow_core.domain.array import ArraySpec
from taskflow_core.domain.chunks import Counted
from taskflow_core.domain.event_input import broken
from taskflow_core.domain.events import ENDS, EntryId, Event, EventKind
from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.arrays import SOURCE, ArrayKey
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.chunk_delivery import ChunkDelivery
from taskflow_operator.arrays.chunks import ChunkId
from taskflow_operator.arrays.history_wait import HistoryWait
from taskflow_operator.arrays.state import ArrayState
from taskflow_operator.arrays.summary import array_status, progress, too_many, universe, verdict
from taskflow_operator.arrays.unknown_handler import HandlerWait
from taskflow_operator.runtime.dependency_health import retry_until_available
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.delivery import queued_status
from taskflow_operator.tasks.message_queue import WAITING_MESSAGE
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import Decision, End, Hold, Pools
from taskflow_operator.tasks.rules.validation import beyond
from taskflow_operator.tasks.status import TaskStatuses

log = get_logger(__name__)
SHOW_SECONDS = 0.5
"""The time between two status writes of an array."""
STOP_SECONDS = 5.0
"""A stop is requested again until it happened, because a Redis that lost its data lost the request too."""
STOCK_SECONDS = 10.0
"""The time between two looks at what is in flight."""
MIN_CHUNKS = 4
"""Chunks in flight while the number of slots is not known yet."""


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
    """What drivers use."""

    tasks: OpenTasks
    delivery: ChunkDelivery
    items: Items
    statuses: TaskStatuses
    closer: Closer
    pools: Pools
    slots: Callable[[str, str], int]
    """Slots of the workers that serve a queue of a namespace."""
    dispatch_at: Callable[[str, datetime | None], None]
    """Has a Task looked at, at a time; None is now."""
    max_lost_workers: int
    """An item fails for good when it took down so many processes in a row."""
    now: Callable[[], datetime]


@dataclass
class _Round:
    """What the events of one round led to."""

    rows: list[ItemRow] = field(default_factory=list)
    settle: list[ChunkId] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counted: Counted | None = None


class ArrayDriver:
    """Runs an array in rounds, each in this order: apply events; enter new chunks in the ledger and publish them; store
    in PostgreSQL what ended; settle the chunks that ended; acknowledge the events. If the operator dies anywhere, its
    successor finds each item that has not ended in exactly one place.

    Args:
        key: the Task.
        services: what it uses.
        acknowledge: acknowledges an event.
    """

    def __init__(self, key: ArrayKey, services: ArrayServices, acknowledge: Callable[[EntryId], None]) -> None:
        self._key = key
        self._uid = key.uid
        self._services = services
        self._delivery = services.delivery
        self._acknowledge = acknowledge
        self._decision: Decision | None = None
        self._ending: End | None = None
        self._inbox: list[Event] = []
        self._changed = asyncio.Event()
        self._state: ArrayState | None = None
        self._handler_wait = HandlerWait(services.pools)
        held = lambda: isinstance(self._decision, Hold)  # noqa: E731 - the user holds it anyway
        self.history_wait = HistoryWait(key.uid, services.tasks, services.statuses, held, services.now)
        self._held_until: datetime | None = None
        self._stop_at: datetime | None = None
        self._stock_at = services.now()
        self._adrift: frozenset[ChunkId] = frozenset()
        self.pending: set[EntryId] = set()
        """The events that it was given and has not acknowledged."""

    def decided(self, decision: Decision) -> None:
        """What to do with the Task."""
        self._decision = decision
        self._changed.set()

    def take(self, event: Event) -> None:
        """An event of one of its chunks."""
        self.pending.add(event.entry)
        self._inbox.append(event)
        self._changed.set()

    def look(self) -> None:
        """The Task may be gone."""
        self._changed.set()

    def data_lost(self, seconds: float) -> None:
        """Redis lost data. After that time, in which workers enter again what they run, take stock."""
        self._held_until = self._services.now() + timedelta(seconds=seconds)
        self._changed.set()

    @property
    def demand(self) -> tuple[int, int]:
        """Chunks that wait for a worker, and chunks that one runs."""
        chunks = self._state.in_flight.values() if self._state is not None else ()
        running = sum(chunk.started for chunk in chunks)
        return sum(not chunk.parked for chunk in chunks) - running, running

    def waits(self, name: ChunkId) -> bool:
        """Whether a chunk is in the ledger, as far as is known."""
        chunk = self._state.in_flight.get(name) if self._state is not None else None
        return chunk is not None and not chunk.started and not chunk.parked

    async def republish(self, names: Sequence[ChunkId] | None = None) -> None:
        """Send chunks again whose messages were lost; by default all that wait, because their list is another one
        now.
        """
        state, known = self._state, self._services.tasks.get(self._uid)
        if state is None or known is None:
            return
        wanted = list(state.in_flight) if names is None else names
        await self._delivery.enter(known.task, state, [state.in_flight[name] for name in wanted if self.waits(name)])

    async def run(self) -> None:
        """Run until the Task has ended, or is gone."""
        known = self._services.tasks.get(self._uid)
        if known is None:
            return
        self._handler_wait.since = known.task.status.unknown_handler_time
        state = self._state = await self._load(known.task)
        while (known := self._services.tasks.get(self._uid)) is not None:
            task = known.task
            result = self._apply_events(task, state)
            if result.counted is not None:
                await self._delivery.note_count(self._key, result.counted)
                state = self._state = await self._load(task, result.counted)
                for name in result.settle:
                    state.in_flight.pop(name, None)
            if self._held_until is not None and self._services.now() >= self._held_until:
                self._held_until = None
                await self._delivery.restore(task, state)
            await self._control(state)
            if self._runs and self._held_until is None and self._handler_wait.pause(self._services.now()) is None:
                await self._hand_out(task, state)
            await self._store(task, state, result)
            if self._over(state):
                await self._close(state, result)
                return
            await self._delivery.settle(self._key, result.settle, state.waiting_note)
            self._acknowledge_all(result.events)
            await self._take_stock(task, state)
            await self._show(state)
            await self._pause(state)
        await self._clean_up(state)

    async def _load(self, task: Task, counted: Counted | None = None) -> ArrayState:
        items, array = self._services.items, _array(task)
        past = await self.history_wait.until_answered(lambda: items.past(self._uid))
        notes = await self._delivery.notes(self._key)
        if counted is None and SOURCE in notes:
            counted = Counted.model_validate_json(notes[SOURCE])
        wanted = universe(array, counted)
        if wanted is not None and (former := array.failed_of) is not None:
            failed = await retry_until_available(lambda: items.failed_of(task.namespace, former))
            wanted = RangeSet() if failed is None else failed & wanted
            if failed is None:
                self._ending = End(
                    Phase.FAILED,
                    Reason.INVALID_SPEC,
                    f"array.failedOf: expected the uid of an array of namespace {task.namespace} that has ended, "
                    f"found {former}",
                )
        state = ArrayState(
            task.spec.retry_policy, wanted, past, notes, counted, max_deaths=self._services.max_lost_workers
        )
        if counted is not None and (problem := beyond(array, counted.total)):
            self._ending = End(Phase.FAILED, Reason.INVALID_SPEC, problem)
        await self._delivery.find(task, state)
        log.info(
            "array_loaded", **log_fields(task), ended=state.ended, total=state.total, in_flight=len(state.in_flight)
        )
        return state

    @property
    def _runs(self) -> bool:
        return self._ending is None and self._decision is not None and not isinstance(self._decision, Hold | End)

    def _apply_events(self, task: Task, state: ArrayState) -> _Round:
        events, self._inbox = self._inbox, []
        result = _Round()
        for event in events:
            if event.kind in ENDS:
                self._end(task, state, self._handler_wait.take(task, event, self._services.now()), result)
                continue
            if event.kind is EventKind.STARTED:
                state.started(event)
            self._acknowledge_all([event])
        if self._ending is None:
            self._ending = self._decision if isinstance(self._decision, End) else too_many(_array(task), state)
        return result

    def _end(self, task: Task, state: ArrayState, event: Event, result: _Round) -> None:
        draw = random.random()  # noqa: S311 - spreads retries, no secret
        try:
            outcome = state.end(event, self._services.now(), draw)
        except ValueError as error:
            # Whatever it says, the chunk is over: its worker gave it up.
            log.error("event_broken", id=event.id, **log_fields(task), error=str(error))  # noqa: TRY400
            outcome = state.end(broken(event, str(error)), self._services.now(), draw)
        result.rows += outcome.rows
        result.settle.append(outcome.settle)
        result.events.append(event)
        result.counted = outcome.counted or result.counted
        if outcome.fatal is not None and self._ending is None:
            kind = f"{outcome.fatal.type}: " if outcome.fatal.type else ""
            self._ending = End(Phase.FAILED, outcome.fatal.reason, f"{kind}{outcome.fatal.message}")

    def _acknowledge_all(self, events: Sequence[Event]) -> None:
        for event in events:
            self.pending.discard(event.entry)
            self._acknowledge(event.entry)

    async def _control(self, state: ArrayState) -> None:
        """Take out of the ledger what must not run now, and ask running chunks to stop if the array ends."""
        if self._runs or self._decision is None:
            return
        await self._delivery.park(self._key, state)
        now = self._services.now()
        if self._ending is not None and (self._stop_at is None or now >= self._stop_at):
            self._stop_at = now + timedelta(seconds=STOP_SECONDS)
            running = [chunk for chunk in state.in_flight.values() if not chunk.parked]
            await self._delivery.stop(self._key, running, self._ending.reason)

    async def _hand_out(self, task: Task, state: ArrayState) -> None:
        parked = [chunk for chunk in state.in_flight.values() if chunk.parked]
        slots = self._services.slots(task.namespace, task.spec.queue)
        chunks = _array(task).parallelism or max(2 * slots, MIN_CHUNKS)
        new = [*parked, *state.hand_out(self._services.now(), chunks)]
        if not new:
            return
        if task.status.phase not in (Phase.QUEUED, Phase.RUNNING):
            queued = task.model_copy(update={"status": self._queued(task)})
            await self._delivery.tell_history(queued, EventKind.QUEUED)
        await self._delivery.enter(task, state, new)

    def _queued(self, task: Task) -> TaskStatus:
        pools = self._services.pools
        message = pools.blocked(task.namespace, task.spec.queue) or WAITING_MESSAGE
        return queued_status(task, pools, message, self._services.now())

    async def _store(self, task: Task, state: ArrayState, result: _Round) -> None:
        while result.rows:
            try:
                await self._services.items.store(self._uid, result.rows)
            except Unavailable as error:
                await self.history_wait.pause(error)
                if self._ending is None and isinstance(self._decision, End):
                    self._ending = self._decision
                await self._control(state)
            else:
                self.history_wait.back()
                queue = metrics.queue_label(task.spec.queue)
                for row in result.rows:
                    metrics.ITEMS.labels(queue=queue, outcome=row.state.value).inc(row.last - row.first + 1)
                return

    def _over(self, state: ArrayState) -> bool:
        if self._ending is not None:
            return all(chunk.parked for chunk in state.in_flight.values())
        return self._decision is not None and state.over

    async def _close(self, state: ArrayState, result: _Round) -> None:
        """The resource has the end before the last chunks are settled and their events acknowledged."""
        known = self._services.tasks.get(self._uid)
        if known is not None:
            task, now = known.task, self._services.now()
            end = self._ending or verdict(_array(task), state)
            task = task.model_copy(update={"status": task.status.model_copy(update=_figures(state))})
            if end.phase is Phase.SUCCEEDED:
                status = transitions.completed(task, end.message, now)
            else:
                status = transitions.stopped(task, end.phase, end.reason, end.message, now)
            await self._services.closer.close(task, status)
        await self._delivery.settle(self._key, result.settle, "[]")
        await self._clean_up(state)
        self._acknowledge_all(result.events)

    async def _clean_up(self, state: ArrayState) -> None:
        """Nothing of the array may run any more, and Redis forgets it."""
        await self._delivery.stop(self._key, state.in_flight.values(), Reason.CANCELLED)
        await self._delivery.settle(self._key, list(state.in_flight), "[]")
        await self._delivery.forget(self._key)
        self._acknowledge_all(self._inbox)

    async def _take_stock(self, task: Task, state: ArrayState) -> None:
        now = self._services.now()
        if now >= self._stock_at and self._held_until is None:
            self._stock_at = now + timedelta(seconds=STOCK_SECONDS)
            self._adrift = await self._delivery.take_stock(task, state, self._adrift)

    async def _show(self, state: ArrayState) -> None:
        known = self._services.tasks.get(self._uid)
        if known is None:
            return
        task, now = known.task, self._services.now()
        status, phase = task.status, task.status.phase
        if isinstance(self._decision, Hold) and self._ending is None:
            hold = self._decision
            if (phase, status.message) != (hold.phase, hold.message):
                status = transitions.waiting(task, hold.phase, hold.reason, hold.message, now)
        elif self._runs:
            started = any(chunk.started for chunk in state.in_flight.values()) or state.ended > 0
            if (back := self._handler_wait.pause(now)) is not None and not started:
                status = transitions.put_back(task, back, now)
            elif phase is not Phase.RUNNING or status.reason == Reason.HISTORY_UNAVAILABLE:
                status = transitions.running(task, None, now) if started else self._queued(task)
        status = transitions.observed(task.model_copy(update={"status": status}))
        status = status.model_copy(update={**_figures(state), "unknown_handler_time": self._handler_wait.since})
        if status == task.status:
            return
        after = self._services.statuses.write(self._uid, status, delay=SHOW_SECONDS)
        if after.status.phase is not phase:
            if isinstance(self._decision, Hold):
                await self._delivery.tell_history(after, EventKind.PENDING)
            # Its deadlines count from now on.
            self._services.dispatch_at(self._uid, None)

    async def _pause(self, state: ArrayState) -> None:
        now = self._services.now()
        times = [self._stock_at, self._held_until, self._stop_at if self._ending else None]
        if self._runs:
            back = self._handler_wait.pause(now)
            times.append(state.next_due() if back is None else back.due)
        until = min(time for time in times if time is not None)
        try:
            # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the event.
            async with asyncio.timeout(max((until - now).total_seconds(), 0)):
                await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self._changed.clear()


def _array(task: Task) -> ArraySpec:
    assert task.spec.array is not None, "only arrays have a driver"  # noqa: S101 - a mistake of ours, not of a user
    return task.spec.array


def _figures(state: ArrayState) -> Mapping[str, object]:
    return {"array": array_status(state), "progress": progress(state)}
