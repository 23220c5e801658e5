"""The state of one open array, and how events change it. Pure.

Each item that has not ended is in exactly one place: *fresh* (never handed out), *waiting* for another attempt, or in a
chunk in flight. What has ended is in the history, and here only as numbers. So memory grows with what is in flight, not
with the number of items.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from taskflow_core.domain.attempts import State
from taskflow_core.domain.chunks import COUNT, ChunkEnd, Counted, ItemError, Source
from taskflow_core.domain.events import Event, EventKind, Failure
from taskflow_core.domain.items import ItemHistory, ItemRow, ItemState
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.retries import Retry, after_failure
from taskflow_core.domain.task import MAX_LOST_WORKERS, RetryPolicy
from taskflow_operator.arrays.chunk_size import ChunkSizer
from taskflow_operator.arrays.chunks import (
    ORIGIN,
    ChunkId,
    ChunkOutcome,
    InFlightChunk,
    Waiting,
    read_notes,
    write_waiting,
)

SHOWN_FAILED = 200
"""Ranges of failed indices that are kept for the status."""
MAX_WAITING = 2000
"""Nothing fresh is handed out while more ranges wait for another attempt: they are kept in memory and in Redis."""
_STOPPED = frozenset({Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.TOO_MANY_FAILURES})
"""Ends of chunks that were asked to stop: their items did not fail."""
_FATAL = frozenset({Reason.UNKNOWN_HANDLER, Reason.INPUT_MISSING, Reason.ITEMS_INVALID})
"""Ends of chunks after which no item can be run."""


class ArrayState:
    """One array.

    Args:
        policy: of each item.
        universe: the indices to run; None while they are not counted, which the first chunk then does.
        past: what the history has.
        notes: what Redis has; empty if it lost its data.
        counted: where the items are, if they come from an object.
        max_deaths: an item fails for good that took down so many processes in a row.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        universe: RangeSet | None,
        past: ItemHistory,
        notes: Mapping[str, str],
        counted: Counted | None = None,
        *,
        max_deaths: int = MAX_LOST_WORKERS,
    ) -> None:
        self._policy, self._max_deaths = policy, max_deaths
        self.counted = counted
        self.total = None if universe is None else len(universe)
        self.succeeded, self.failed, self.retried = past.succeeded, past.failed, past.retried
        self.failed_shown = past.failed_first
        self.sizer = ChunkSizer()
        self.waiting: list[Waiting] = []
        self.in_flight: dict[ChunkId, InFlightChunk] = {}
        self.fresh = RangeSet() if universe is None else universe - past.ended
        self._read(notes, past.ended)
        self._most_pieces = self.fresh.ranges + MAX_WAITING
        """What is fresh falls into no more of them by ends of chunks that nobody remembers."""
        counting = universe is None and not self.in_flight
        self._count: Waiting | None = Waiting(1, 0, 0, ORIGIN, RangeSet()) if counting else None

    @property
    def source(self) -> Source | None:
        """Where the items are, if they come from an object and are counted."""
        return None if self.counted is None else self.counted.source

    def _read(self, notes: Mapping[str, str], ended: RangeSet) -> None:
        # An operator may have died between two steps. Then an item is in two places, and the later attempt counts.
        seen = ended
        for each in sorted(read_notes(notes), key=lambda one: (-one.attempt, isinstance(one, Waiting))):
            each.items = each.items - seen
            seen = seen | each.items
            if isinstance(each, InFlightChunk):
                self.in_flight[each.id] = each
            elif each.items:
                self.waiting.append(each)
        self.fresh = self.fresh - seen

    @property
    def ended(self) -> int:
        """Items that succeeded or failed for good."""
        return self.succeeded + self.failed

    @property
    def over(self) -> bool:
        """No item is left, and no chunk in flight."""
        return self.total is not None and not self.fresh and not self.waiting and not self.in_flight

    @property
    def running(self) -> int:
        """Items of the chunks that workers hold."""
        return sum(len(chunk.items) for chunk in self.in_flight.values() if chunk.started)

    @property
    def waiting_note(self) -> str:
        """What waits for another attempt, for Redis."""
        return write_waiting(self.waiting)

    def next_due(self) -> datetime | None:
        """When the first of what waits is due."""
        counting = [self._count] if self._count is not None else []
        return min((each.due for each in (*self.waiting, *counting)), default=None)

    def hand_out(self, now: datetime, chunks: int) -> list[InFlightChunk]:
        """Put items into chunks until this many are in flight. What waits and is due comes before what is fresh."""
        new: list[InFlightChunk] = []
        while len(self.in_flight) < chunks and (chunk := self._next(now, chunks)) is not None:
            self.in_flight[chunk.id] = chunk
            new.append(chunk)
        return new

    def _next(self, now: datetime, chunks: int) -> InFlightChunk | None:
        if self._count is not None and self._count.due <= now:
            counting, self._count = self._count, None
            return InFlightChunk(counting.attempt, COUNT, counting.handbacks, RangeSet())
        due = next((each for each in self.waiting if each.due <= now), None)
        if due is not None:
            size = self.sizer.items(len(due.items) + len(self.fresh), chunks)
            items, due.items = due.items.take(min(size, due.limit or size))
            if not due.items:
                self.waiting.remove(due)
            return InFlightChunk(due.attempt, items.first, due.handbacks, items, deaths=due.deaths)
        if not self.fresh or sum(each.items.ranges for each in self.waiting) > MAX_WAITING:
            return None
        items, self.fresh = self.fresh.take(self.sizer.items(len(self.fresh), chunks))
        return InFlightChunk(1, items.first, 0, items)

    def found(self, states: Iterable[tuple[InFlightChunk, State]]) -> None:
        """Apply what the ledger says of chunks that an earlier operator handed out."""
        for chunk, state in states:
            chunk.started = state.leased
            chunk.parked = not (state.leased or state.waiting or state.claim)

    def entered(self, chunks: Iterable[InFlightChunk]) -> None:
        """Chunks are in the ledger now."""
        for chunk in chunks:
            chunk.parked = False

    def taken(self, states: Iterable[tuple[InFlightChunk, State]], now: datetime) -> None:
        """Chunks could not be entered: somebody holds them, or did once. After data was lost, names may come a second
        time.
        """
        for chunk, state in states:
            if state.leased:
                chunk.started = True
            elif state.settled:
                self._refused(chunk, now)

    def parked(self, chunk: InFlightChunk) -> None:
        """A chunk was taken out of the ledger."""
        chunk.parked = True

    def restored(self, states: Iterable[tuple[InFlightChunk, State]]) -> list[ChunkId]:
        """Redis lost data, and workers have entered again what they run. Returns chunks that ran and are lost."""
        lost: list[ChunkId] = []
        for chunk, state in states:
            if state.leased:
                chunk.started = True
            elif chunk.started and not state.waiting:
                lost.append(chunk.id)
            elif not state.waiting:
                # It was queued, and is handed out again.
                chunk.parked = True
        return lost

    def take_stock(
        self, states: Iterable[tuple[InFlightChunk, State]], before: frozenset[ChunkId]
    ) -> tuple[frozenset[ChunkId], list[ChunkId]]:
        """Find chunks that are neither held nor waiting. At two looks in a row, their end was lost on its way.

        Returns those of this look, and those of both that ran and are lost.
        """
        adrift: dict[ChunkId, tuple[InFlightChunk, State]] = {}
        for chunk, state in states:
            if state.leased:
                chunk.started = True
            elif not state.waiting and not chunk.parked:
                adrift[chunk.id] = chunk, state
        lost: list[ChunkId] = []
        for name, (chunk, state) in adrift.items():
            if name not in before:
                continue
            if state.claim or chunk.started:
                lost.append(name)
            else:
                # Nobody ever claimed it, so it is handed out again.
                chunk.parked = True
        return frozenset(adrift), lost

    def _refused(self, chunk: InFlightChunk, now: datetime) -> None:
        """The name of the chunk was used before, by an attempt that only Redis remembers: its items get another one."""
        del self.in_flight[chunk.id]
        if chunk.first == COUNT:
            self._count = Waiting(chunk.attempt + 1, chunk.handbacks + 1, 0, now, RangeSet())
        self._wait(chunk.items, chunk.attempt + 1, chunk.handbacks + 1, 0, _due(now, 0))

    def started(self, event: Event) -> bool:
        """A worker claimed a chunk; True if that is news."""
        chunk = self.in_flight.get((event.attempt, event.chunk or 0))
        if chunk is None or chunk.started:
            return False
        chunk.started = True
        return True

    def end(self, event: Event, now: datetime, draw: float) -> ChunkOutcome:
        """A chunk ended. An item that has ended before stays as it is.

        Raises:
            ValueError: the event's payload does not fit its kind; nothing has changed then.
        """
        if event.chunk == COUNT:
            return self._counted(event, now, draw)
        place = event.attempt, event.chunk or 0
        end = ChunkEnd.model_validate(event.payload) if event.kind is EventKind.SUCCEEDED else None
        if end is not None and (place in self.in_flight or _pieces(end) <= MAX_WAITING):
            _check(end)
        failure = None if end is not None else Failure.model_validate(event.payload)
        chunk = self.in_flight.pop(place, None)
        if chunk is None and end is not None and _pieces(end) > MAX_WAITING:
            # It may be said again and again. To look for so many pieces takes long; they are run again.
            return ChunkOutcome(settle=place)
        if chunk is None:
            # Redis lost its data and an operator its memory. What was run still counts, if it has not ended since.
            chunk = InFlightChunk(event.attempt, place[1], 0, self._withdrawn(_named(end)))
        outcome = ChunkOutcome(settle=place)
        if end is not None:
            self._ran(chunk, end, outcome, now, draw)
        elif failure is not None:
            self._broke(chunk, failure, outcome, now, draw)
        return outcome

    def _counted(self, event: Event, now: datetime, draw: float) -> ChunkOutcome:
        """The items of an object were counted, or could not be."""
        place = event.attempt, COUNT
        chunk = self.in_flight.pop(place, None)
        if self.total is not None or chunk is None:
            return ChunkOutcome(settle=place)
        if event.kind is EventKind.SUCCEEDED:
            return ChunkOutcome(settle=place, counted=Counted.model_validate(event.payload))
        failure = Failure.model_validate(event.payload)
        counted = chunk.attempt - chunk.handbacks
        answer = after_failure(self._policy, counted=counted, failure=failure, draw=draw)
        if not isinstance(answer, Retry):
            return ChunkOutcome(settle=place, fatal=failure)
        handbacks = chunk.handbacks if answer.counts else chunk.handbacks + 1
        due = _due(now, answer.delay_seconds)
        self._count = Waiting(chunk.attempt + 1, handbacks, 0, due, RangeSet())
        return ChunkOutcome(settle=place)

    def _withdrawn(self, named: RangeSet) -> RangeSet:
        left = self.fresh - named
        if left.ranges > self._most_pieces:
            return RangeSet()
        found = self.fresh & named
        self.fresh = left
        places: list[Waiting | InFlightChunk] = [*self.waiting, *self.in_flight.values()]
        for each in places:
            found = found | (each.items & named)
            each.items = each.items - named
        self.waiting = [each for each in self.waiting if each.items]
        return found

    def _ran(self, chunk: InFlightChunk, end: ChunkEnd, outcome: ChunkOutcome, now: datetime, draw: float) -> None:
        left = chunk.items
        attempts = chunk.attempt - chunk.handbacks
        ok = RangeSet.parse(end.ok) & left
        results = [(index, value) for index, value in end.results if index in left]
        errors = [error for error in end.errors if error.index in left]
        left = left - ok - RangeSet.of(index for index, _ in results) - RangeSet.of(error.index for error in errors)
        outcome.rows += [ItemRow(first, last, ItemState.SUCCEEDED, attempts) for first, last in ok.pairs()]
        outcome.rows += [ItemRow(index, index, ItemState.SUCCEEDED, attempts, result=value) for index, value in results]
        self.succeeded += len(ok) + len(results)
        self.retried += len(ok) + len(results) if attempts > 1 else 0
        self.sizer = self.sizer.after(end.ran, end.run_ms / 1000, cut=bool(left))
        if left:
            self._wait(left, chunk.attempt + 1, chunk.handbacks + 1, 0, _due(now, 0))
        for delay, again in self._judge(chunk, end, errors, outcome, draw).items():
            self._wait(RangeSet.of(again), chunk.attempt + 1, chunk.handbacks, 0, _due(now, delay))

    def _judge(
        self, chunk: InFlightChunk, end: ChunkEnd, errors: Sequence[ItemError], outcome: ChunkOutcome, draw: float
    ) -> Mapping[int, list[int]]:
        """The failed items that get another attempt, by the seconds until then. The others have failed for good."""
        counted = chunk.attempt - chunk.handbacks
        again: dict[int, list[int]] = {}
        lost: list[int] = []
        for error in errors:
            answer = after_failure(self._policy, counted=counted, failure=end.failure(error), draw=draw)
            if isinstance(answer, Retry):
                again.setdefault(answer.delay_seconds, []).append(error.index)
            else:
                lost.append(error.index)
                outcome.rows.append(_failed(error.index, error.index, counted, end.failure(error)))
        self._fail(RangeSet.of(lost), counted)
        return again

    def _broke(self, chunk: InFlightChunk, failure: Failure, outcome: ChunkOutcome, now: datetime, draw: float) -> None:
        """The chunk as a whole failed: nothing is known of its items."""
        if failure.reason in _STOPPED:
            self._wait(chunk.items, chunk.attempt + 1, chunk.handbacks + 1, 0, _due(now, 0), chunk.deaths)
            return
        counted = chunk.attempt - chunk.handbacks
        deaths = chunk.deaths + 1 if failure.reason.worker_died else 0
        if deaths >= self._max_deaths and len(chunk.items) == 1:
            message = f"{deaths} processes in a row died while they ran it alone or among others; {failure.message}"
            failure = failure.model_copy(update={"reason": Reason.POISON_TASK, "message": message})
        answer = after_failure(self._policy, counted=counted, failure=failure, draw=draw)
        if isinstance(answer, Retry):
            handbacks = chunk.handbacks if answer.counts else chunk.handbacks + 1
            due = _due(now, answer.delay_seconds)
            deaths = deaths if answer.counts else chunk.deaths
            limit = self._smaller(len(chunk.items), counted + 1, deaths) if answer.counts else 0
            self._wait(chunk.items, chunk.attempt + 1, handbacks, limit, due, deaths)
            return
        outcome.rows += [_failed(first, last, counted, failure) for first, last in chunk.items.pairs()]
        self._fail(chunk.items, counted)
        if failure.reason in _FATAL:
            outcome.fatal = failure

    def _smaller(self, size: int, attempt: int, deaths: int) -> int:
        """One of the items may kill its process. At its last attempt it is alone, so it takes no other with it."""
        last = attempt >= self._policy.max_attempts or deaths + 1 >= self._max_deaths
        return 1 if last else math.isqrt(size)

    def _fail(self, items: RangeSet, attempts: int) -> None:
        self.failed += len(items)
        self.retried += len(items) if attempts > 1 else 0
        shown = self.failed_shown | items
        self.failed_shown = shown if shown.ranges <= SHOWN_FAILED else RangeSet(list(shown.pairs())[:SHOWN_FAILED])

    def _wait(self, items: RangeSet, attempt: int, handbacks: int, limit: int, due: datetime, deaths: int = 0) -> None:
        if not items:
            return
        for each in self.waiting:
            key = each.attempt, each.handbacks, each.limit, each.due, each.deaths
            if key == (attempt, handbacks, limit, due, deaths):
                each.items = each.items | items
                return
        self.waiting.append(Waiting(attempt, handbacks, limit, due, items, deaths))


def _due(now: datetime, delay: int) -> datetime:
    """In whole seconds, so that items which fail at about the same time come back together; never too soon."""
    return (now + timedelta(seconds=delay + 1 if delay else 0)).replace(microsecond=0)


def _failed(first: int, last: int, attempts: int, failure: Failure) -> ItemRow:
    return ItemRow(
        first,
        last,
        ItemState.FAILED,
        attempts,
        reason=failure.reason,
        error_type=failure.type,
        message=failure.message,
    )


def _check(end: ChunkEnd) -> None:
    """A worker may say anything.

    Raises:
        ValueError: its ranges are none, or it reports the end of an item twice.
    """
    ok, singles = RangeSet.parse(end.ok), _singles(end)
    if len(set(singles)) != len(singles) or any(index in ok for index in singles):
        raise ValueError("it reports the end of an item twice")


def _pieces(end: ChunkEnd) -> int:
    """At most so many ranges are in what it reports; without reading them."""
    return end.ok.count(",") + 1 + len(end.results) + len(end.errors)


def _singles(end: ChunkEnd) -> list[int]:
    return [*(index for index, _ in end.results), *(error.index for error in end.errors)]


def _named(end: ChunkEnd | None) -> RangeSet:
    """Items whose end it reports."""
    return RangeSet() if end is None else RangeSet.parse(end.ok) | RangeSet.of(_singles(end))
