"""Consumer groups of the event streams. Each namespace has two streams: what its workers say, and what the operator
says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from taskflow_core.domain.event_input import MAX_FIELD_BYTES, Refusal, RefusedEntryError, read_event
from taskflow_core.domain.events import EntryId, Event, Origin, Stream
from taskflow_core.domain.naming import keys_of
from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.ledger.connect import redis_errors
from taskflow_core.ledger.scripting import BatchScript, Call, wrong_type
from taskflow_core.ledger.turns import Turns

GROUPS = {"cr": (Origin.WORKERS,), "pg": (Origin.WORKERS, Origin.OPERATOR)}
"""The consumer groups, and what each of them reads."""
STREAMS_PER_READ = 64
MAX_READ_BYTES = 1024 * 1024
"""Of all streams of one read together; a batch of a stream may be larger by its last four entries. What a worker
made for that takes most of a second to check.
"""
SLICE_SECONDS = 0.01
"""After this time of checking entries, others get a turn."""
_STEPS = 128
"""Times four entries that one read takes of a stream."""
KEPT_MS = 60_000
"""How long entries are kept that all groups have read."""
AHEAD_MS = 24 * 3600 * 1000
"""An id that far in the future was not given by Redis; the greatest one would end the stream."""
MAX_STREAM_BYTES = 256 * 1024 * 1024
"""A million ends of ordinary Tasks."""


def stream_key(stream: Stream) -> str:
    """Redis key of a stream."""
    keys = keys_of(stream.namespace)
    return keys.events if stream.origin is Origin.WORKERS else keys.notes


@dataclass(frozen=True)
class RefusedEntry:
    """An entry that is no event."""

    entry: EntryId
    reason: Refusal
    message: str


@dataclass(frozen=True)
class Read:
    """The result of one read of one stream."""

    stream: Stream
    events: tuple[Event, ...] = ()
    refused: tuple[RefusedEntry, ...] = ()
    """Unless they are acknowledged, they come again."""
    last: bool = True
    """There was nothing more in the stream."""
    problem: str = ""
    """Why the stream could not be read: it is broken, or the group does not exist."""


@dataclass(frozen=True)
class Standing:
    """How a group stands to a stream."""

    stream: Stream
    pending: int = 0
    """Entries that were read and not acknowledged."""
    unread: int = 0
    gap: bool = False
    """The stream was trimmed past entries that the group had not read."""
    age_ms: int = 0
    """Of the oldest entry that is not acknowledged."""
    idle_ms: int = 0
    """Since the last entry."""
    problem: str = ""
    """What is wrong with the stream, so that it has to be made anew."""


class StreamReader:
    """One consumer group's places in the streams, kept in Redis: a restarted reader goes on where it was.

    The consumer's name is fixed, so entries that were read but not acknowledged can be read again first.

    Args:
        client: connection.
        group: one of `GROUPS`.
        token_key: from which the token of each attempt is derived.
    """

    def __init__(self, client: redis.asyncio.Redis, group: str, token_key: str) -> None:
        self._client = client
        self.group = group
        self._token_key = token_key
        self._read = BatchScript(client, "read")
        self._look = BatchScript(client, "look")
        self._backlogs: dict[Stream, str] = {}

    def streams_of(self, namespace: str) -> tuple[Stream, ...]:
        """The streams of a namespace that the group reads."""
        return tuple(Stream(namespace, origin) for origin in GROUPS[self.group])

    def start_over(self, stream: Stream) -> None:
        """Read first, once more, what was read and not acknowledged."""
        self._backlogs[stream] = "0"

    async def read(self, streams: Sequence[Stream]) -> list[Read]:
        """The next entries of up to `STREAMS_PER_READ` streams, in one round trip; of each first those to read again.

        Raises:
            Unavailable: Redis does not answer.
        """
        bytes_each = MAX_READ_BYTES // max(1, len(streams))
        calls: list[Call] = [
            ([stream_key(each)], [self.group, self._backlogs.get(each, ">"), _STEPS, MAX_FIELD_BYTES, bytes_each])
            for each in streams
        ]
        answers = await self._read.call(calls)
        turns = Turns(SLICE_SECONDS)
        return [await self._decode(stream, answer, turns) for stream, answer in zip(streams, answers, strict=True)]

    async def _decode(self, stream: Stream, answer: Any, turns: Turns) -> Read:
        if isinstance(answer, RedisError):
            return Read(stream, problem=str(answer))
        ended, entries = answer
        backlog = stream in self._backlogs
        if backlog and ended:
            del self._backlogs[stream]
        elif backlog:
            self._backlogs[stream] = entries[-1][0]
        events: list[Event] = []
        refused: list[RefusedEntry] = []
        for entry_id, flat in entries:
            await turns.give()
            # An entry that was trimmed while it was in the backlog comes back without fields.
            fields = dict(zip(flat[0::2], flat[1::2], strict=True))
            try:
                events.append(read_event(stream, entry_id, fields, self._token_key))
            except RefusedEntryError as error:
                refused.append(RefusedEntry(EntryId(stream, entry_id), error.reason, str(error)))
        return Read(stream, tuple(events), tuple(refused), last=bool(ended) and not backlog)

    async def look(self, namespaces: Iterable[str], now_ms: int, *, sizes: bool = False) -> list[Standing]:
        """How the group stands to the streams of these namespaces, in one round trip.

        Args:
            namespaces: which.
            now_ms: Redis' clock.
            sizes: also compare the memory that the streams take with `MAX_STREAM_BYTES`.

        Raises:
            Unavailable: Redis does not answer.
        """
        streams = [stream for namespace in namespaces for stream in self.streams_of(namespace)]
        answers = await self._look.call([([stream_key(each)], [self.group, int(sizes)]) for each in streams])
        for answer in answers:
            if isinstance(answer, RedisError) and not wrong_type(answer):
                # Nothing is wrong with the stream, and it must not be made anew.
                raise Unavailable(f"Redis: {answer}", Dependency.REDIS) from answer
        return [standing(stream, answer, now_ms) for stream, answer in zip(streams, answers, strict=True)]

    async def acknowledge(self, entries: Iterable[EntryId]) -> None:
        """Say that these entries are done with; last of all, after their effects are durable.

        Raises:
            Unavailable: Redis does not answer.
        """
        by_stream: dict[Stream, list[str]] = {}
        for entry in entries:
            by_stream.setdefault(entry.stream, []).append(entry.id)
        if not by_stream:
            return
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for stream, ids in by_stream.items():
                    pipe.xack(stream_key(stream), self.group, *ids)
                # A stream that is gone or broken has nothing to acknowledge; the next look finds it.
                await pipe.execute(raise_on_error=False)


def standing(stream: Stream, answer: Any, now_ms: int) -> Standing:
    """What the answer of `look.lua` says. Pure."""
    if isinstance(answer, RedisError):
        return Standing(stream, problem=f"it cannot be read: {answer}")
    if not answer:
        return Standing(stream, problem="its consumer group is gone")
    length, added, last, first, delivered, pending, oldest, lag, unread, used = answer
    if _position(last)[0] > now_ms + AHEAD_MS:
        return Standing(stream, problem=f"its last id {last} is in the future, and no more may fit behind it")
    if int(used) > MAX_STREAM_BYTES:
        return Standing(stream, problem=f"it takes {used} bytes, at most {MAX_STREAM_BYTES} are allowed")
    # By places and not by counts: a group's count is off after Redis was restarted.
    trimmed = int(added) != int(length) and (not first or _position(first) > _position(delivered))
    since = min((_position(each)[0] for each in (oldest, unread) if each), default=now_ms)
    return Standing(
        stream,
        pending=int(pending),
        unread=max(int(lag), 1) if unread else 0,
        gap=trimmed and last != delivered,
        age_ms=max(now_ms - since, 0),
        idle_ms=max(now_ms - _position(last)[0], 0),
    )


async def trim_read(client: redis.asyncio.Redis, streams: Iterable[Stream], now_ms: int) -> None:
    """Drop entries that all groups have acknowledged and that are older than `KEPT_MS`.

    The latest of them stays, so that the beginning of a stream is never past a reader that has read everything.

    Raises:
        Unavailable: Redis does not answer.
    """
    calls = []
    for stream in streams:
        readers = [group for group, origins in GROUPS.items() if stream.origin in origins]
        calls.append(([stream_key(stream)], [f"{now_ms - KEPT_MS}-0", *readers]))
    # A stream that lacks a group keeps everything.
    await BatchScript(client, "trim").call(calls)


def _position(stream_id: object) -> tuple[int, int]:
    milliseconds, _, number = str(stream_id).partition("-")
    return int(milliseconds), int(number or 0)
