"""Chunks of an array, and how they are noted in Redis. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import Counted
from taskflow_core.domain.events import Failure
from taskflow_core.domain.items import ItemRow
from taskflow_core.domain.ranges import RangeSet

ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_CHUNKS = frozenset({"waiting", "source"})
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
    deaths: int = 0
    """Processes that its items took down, one after the other."""

    @property
    def id(self) -> ChunkId:
        """Its name within the array."""
        return self.attempt, self.first

    @property
    def note(self) -> str:
        """What a later operator needs to know."""
        return json.dumps([self.handbacks, str(self.items), *_deaths(self.deaths)])


@dataclass
class Waiting:
    """Items that wait for another attempt."""

    attempt: int
    handbacks: int
    limit: int
    """A chunk gets at most this many of them; 0 is without a limit."""
    due: datetime
    items: RangeSet
    deaths: int = 0
    """See `InFlightChunk`."""


@dataclass
class ChunkOutcome:
    """The result of a chunk that ended."""

    settle: ChunkId
    """The chunk that is over."""
    rows: list[ItemRow] = field(default_factory=list)
    """Items that ended, for the history."""
    counted: Counted | None = None
    """How many items there are and where, if this chunk counted them."""
    fatal: Failure | None = None
    """Why no item can be run: the handler is unknown, or an input is missing, for example."""


def read_notes(notes: Mapping[str, str]) -> list[Waiting | InFlightChunk]:
    """What an array's hash in Redis says of its chunks and of what waits."""
    found: list[Waiting | InFlightChunk] = list(_read_waiting(notes.get("waiting", "[]")))
    for name, note in notes.items():
        if name not in _NOT_CHUNKS:
            attempt, first = naming.split_place(name)
            handbacks, items, *deaths = json.loads(note)
            found.append(InFlightChunk(attempt, first or 0, handbacks, RangeSet.parse(items), deaths=sum(deaths)))
    return found


def write_waiting(waiting: Sequence[Waiting]) -> str:
    """What waits for another attempt, as it is noted in Redis."""
    return json.dumps(
        [
            [
                each.attempt,
                each.handbacks,
                each.limit,
                int((each.due - ORIGIN).total_seconds()),
                str(each.items),
                *_deaths(each.deaths),
            ]
            for each in waiting
        ]
    )


def _deaths(number: int) -> list[int]:
    """As it is noted: rare, so it is left out where there is none, as in notes of an older version."""
    return [number] if number else []


def _read_waiting(text: str) -> Iterator[Waiting]:
    for attempt, handbacks, limit, due, items, *deaths in json.loads(text):
        when = ORIGIN + timedelta(seconds=due)
        yield Waiting(attempt, handbacks, limit, when, RangeSet.parse(items), sum(deaths))
