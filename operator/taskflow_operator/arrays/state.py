"""What is known of one open array, and what follows from what happens to it. No I/O, no clock.

Each item that has not ended is in exactly one place: *fresh* (never handed out), *waiting* for another attempt, or in a chunk
in chunk. What has ended is in the history, and here only as numbers. So memory goes with what is in chunk, not with the
number of items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import COUNT, ChunkEnd, Counted, ItemError, Source
from taskflow_core.domain.events import Event, EventKind, Failure
from taskflow_core.domain.items import ItemHistory, ItemRow, ItemState
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.retries import Retry, after_failure
from taskflow_core.domain.task import RetryPolicy
from taskflow_operator.arrays.chunk_size import ChunkSizer

SHOWN_FAILED = 200
"""Ranges of failed indices that are kept for the status."""
MOST_WAITING = 2000
"""Ranges that wait for another attempt, beyond which nothing fresh is handed out: they are kept in memory and in Redis."""
ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_STOPPED = frozenset({Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.TOO_MANY_FAILURES})
"""Ends of chunks that were told to stop: their items did not fail."""
_FATAL = frozenset({Reason.UNKNOWN_HANDLER, Reason.INPUT_MISSING, Reason.ITEMS_INVALID})
"""Ends of chunks that say that no item can be run."""

NOT_CHUNKS = frozenset({"waiting", "source"})
"""Fields of an array's notes that are no chunks: what waits for another attempt, and where its items are."""
ChunkId = tuple[int, int]
"""Attempt and first index of a chunk."""


@dataclass
class InFlightChunk:
    """A chunk that was handed out and is not settled."""

    attempt: int
    first: int
    handbacks: int
    items: RangeSet
    """Those that have not ended."""
    started: bool = False
    parked: bool = False
    """Taken out of the ledger while the array is suspended."""

    @property
    def place(self) -> ChunkId:
        """What names it within the array."""
        return self.attempt, self.first

    @property
    def note(self) -> str:
        """What a later operator has to know."""
        return json.dumps([self.handbacks, str(self.items)])


@dataclass
class Waiting:
    """Items that get another attempt."""

    attempt: int
    handbacks: int
    limit: int
    """At most so many of them in a chunk: 0 is without a limit."""
    due: datetime
    items: RangeSet


@dataclass
class ChunkOutcome:
    """What an event came to."""

    settle: ChunkId
    """The chunk that is over."""
    rows: list[ItemRow] = field(default_factory=list)
    """Items that ended, for the history."""
    counted: Counted | None = None
    """How many items there are, and where."""
    fatal: Failure | None = None
    """No item can be run: the handler is unknown, an input is missing ..."""


class ArrayState:
    """One array.

    Args:
        policy: of each item.
        universe: the indices that are to be run; None while they are not counted, which is then the first thing to be done.
        past: what the history has.
        notes: what Redis has; empty when it lost its data.
        counted: where the items are, if they come from an object.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        universe: RangeSet | None,
        past: ItemHistory,
        notes: Mapping[str, str],
        counted: Counted | None = None,
    ) -> None:
        self._policy = policy
        self.counted = counted
        self.total = None if universe is None else len(universe)
        self.succeeded, self.failed, self.retried = past.succeeded, past.failed, past.retried
        self.failed_shown = past.failed_first
        self.sizer = ChunkSizer()
        self.waiting: list[Waiting] = []
        self.in_flight: dict[ChunkId, InFlightChunk] = {}
        self.fresh = RangeSet() if universe is None else universe - past.ended
        self._read(notes, past.ended)
        counting = universe is None and not self.in_flight
        self._count: Waiting | None = Waiting(1, 0, 0, ORIGIN, RangeSet()) if counting else None

    @property
    def source(self) -> Source | None:
        """Where the items are, if they come from an object and are counted."""
        return None if self.counted is None else self.counted.source

    def _read(self, notes: Mapping[str, str], ended: RangeSet) -> None:
        # An operator may have died between two steps: then an item is in two places, and the later attempt is the true one.
        found: list[Waiting | InFlightChunk] = list(_read_waiting(notes.get("waiting", "[]")))
        for place, note in notes.items():
            if place not in NOT_CHUNKS:
                attempt, first = naming.split_place(place)
                handbacks, items = json.loads(note)
                found.append(InFlightChunk(attempt, first or 0, handbacks, RangeSet.parse(items)))
        seen = ended
        for each in sorted(found, key=lambda one: (-one.attempt, isinstance(one, Waiting))):
            each.items = each.items - seen
            seen = seen | each.items
            if isinstance(each, InFlightChunk):
                self.in_flight[each.place] = each
            elif each.items:
                self.waiting.append(each)
        self.fresh = self.fresh - seen

    @property
    def ended(self) -> int:
        """Items that succeeded or failed for good."""
        return self.succeeded + self.failed

    @property
    def over(self) -> bool:
        """No item is left, and no chunk in chunk."""
        return self.total is not None and not self.fresh and not self.waiting and not self.in_flight

    @property
    def running(self) -> int:
        """Items of the chunks that workers hold."""
        return sum(len(chunk.items) for chunk in self.in_flight.values() if chunk.started)

    @property
    def waiting_note(self) -> str:
        """What waits, for Redis."""
        return json.dumps(
            [
                [each.attempt, each.handbacks, each.limit, int((each.due - ORIGIN).total_seconds()), str(each.items)]
                for each in self.waiting
            ]
        )

    def next_due(self) -> datetime | None:
        """When the first of what waits is due."""
        counting = [self._count] if self._count is not None else []
        return min((each.due for each in (*self.waiting, *counting)), default=None)

    def hand_out(self, now: datetime, chunks: int) -> list[InFlightChunk]:
        """Put items into chunks until so many are in chunk. What waits and is due goes before what is fresh."""
        new: list[InFlightChunk] = []
        while len(self.in_flight) < chunks and (chunk := self._next(now, chunks)) is not None:
            self.in_flight[chunk.place] = chunk
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
            return InFlightChunk(due.attempt, items.first, due.handbacks, items)
        if not self.fresh or sum(each.items.ranges for each in self.waiting) > MOST_WAITING:
            return None
        items, self.fresh = self.fresh.take(self.sizer.items(len(self.fresh), chunks))
        return InFlightChunk(1, items.first, 0, items)

    def refused(self, chunk: InFlightChunk, now: datetime) -> None:
        """Its name was used before, by an attempt that Redis remembers and we do not: its items get another one."""
        del self.in_flight[chunk.place]
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
        """A chunk ended, one way or another. An item that has ended before stays as it ended.

        Raises:
            ValueError: the event's payload does not fit its kind.
        """
        if event.chunk == COUNT:
            return self._counted(event, now, draw)
        place = event.attempt, event.chunk or 0
        end = ChunkEnd.model_validate(event.payload) if event.kind is EventKind.SUCCEEDED else None
        failure = None if end is not None else Failure.model_validate(event.payload)
        chunk = self.in_flight.pop(place, None)
        if chunk is None:
            # Redis lost its data and an operator its memory; what was run counts all the same, if it has not ended since.
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
        found = self.fresh & named
        self.fresh = self.fresh - named
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
        for delay, again in self._judge(chunk, errors, outcome, draw).items():
            self._wait(RangeSet.of(again), chunk.attempt + 1, chunk.handbacks, 0, _due(now, delay))

    def _judge(
        self, chunk: InFlightChunk, errors: Sequence[ItemError], outcome: ChunkOutcome, draw: float
    ) -> Mapping[int, list[int]]:
        """Which of the failed items get another attempt, by the seconds until then; the others have failed."""
        counted = chunk.attempt - chunk.handbacks
        again: dict[int, list[int]] = {}
        lost: list[int] = []
        for error in errors:
            failure = Failure(reason=error.reason, type=error.type, message=error.message)
            answer = after_failure(self._policy, counted=counted, failure=failure, draw=draw)
            if isinstance(answer, Retry):
                again.setdefault(answer.delay_seconds, []).append(error.index)
            else:
                lost.append(error.index)
                outcome.rows.append(
                    ItemRow(
                        error.index,
                        error.index,
                        ItemState.FAILED,
                        counted,
                        reason=error.reason,
                        error_type=error.type,
                        message=error.message,
                    )
                )
        self._fail(RangeSet.of(lost), counted)
        return again

    def _broke(self, chunk: InFlightChunk, failure: Failure, outcome: ChunkOutcome, now: datetime, draw: float) -> None:
        """The chunk as a whole ended badly: nothing is known of its items."""
        if failure.reason in _STOPPED:
            self._wait(chunk.items, chunk.attempt + 1, chunk.handbacks + 1, 0, _due(now, 0))
            return
        counted = chunk.attempt - chunk.handbacks
        answer = after_failure(self._policy, counted=counted, failure=failure, draw=draw)
        if isinstance(answer, Retry):
            handbacks = chunk.handbacks if answer.counts else chunk.handbacks + 1
            due = _due(now, answer.delay_seconds)
            limit = self._smaller(len(chunk.items), counted + 1) if answer.counts else 0
            self._wait(chunk.items, chunk.attempt + 1, handbacks, limit, due)
            return
        outcome.rows += [
            ItemRow(
                first,
                last,
                ItemState.FAILED,
                counted,
                reason=failure.reason,
                error_type=failure.type,
                message=failure.message,
            )
            for first, last in chunk.items.pairs()
        ]
        self._fail(chunk.items, counted)
        if failure.reason in _FATAL:
            outcome.fatal = failure

    def _smaller(self, size: int, attempt: int) -> int:
        """One of the items may be what kills its process. Alone at its last attempt, it takes no other with it."""
        return 1 if attempt >= self._policy.max_attempts else math.isqrt(size)

    def _fail(self, items: RangeSet, attempts: int) -> None:
        self.failed += len(items)
        self.retried += len(items) if attempts > 1 else 0
        shown = self.failed_shown | items
        self.failed_shown = shown if shown.ranges <= SHOWN_FAILED else RangeSet(list(shown.pairs())[:SHOWN_FAILED])

    def _wait(self, items: RangeSet, attempt: int, handbacks: int, limit: int, due: datetime) -> None:
        if not items:
            return
        for each in self.waiting:
            if (each.attempt, each.handbacks, each.limit, each.due) == (attempt, handbacks, limit, due):
                each.items = each.items | items
                return
        self.waiting.append(Waiting(attempt, handbacks, limit, due, items))


def _due(now: datetime, delay: int) -> datetime:
    """By whole seconds, so that what fails at about the same time comes back together; never too soon."""
    return (now + timedelta(seconds=delay + 1 if delay else 0)).replace(microsecond=0)


def _named(end: ChunkEnd | None) -> RangeSet:
    """Items that it tells the end of."""
    if end is None:
        return RangeSet()
    singles: Iterable[int] = [*(index for index, _ in end.results), *(error.index for error in end.errors)]
    return RangeSet.parse(end.ok) | RangeSet.of(singles)


def _read_waiting(text: str) -> Iterator[Waiting]:
    for attempt, handbacks, limit, due, items in json.loads(text):
        yield Waiting(attempt, handbacks, limit, ORIGIN + timedelta(seconds=due), RangeSet.parse(items))
