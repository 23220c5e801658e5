"""Consumer groups of the event stream."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import ResponseError, WatchError

from taskflow_core.domain import naming
from taskflow_core.domain.events import Event
from taskflow_core.ledger.connect import redis_errors

READ_COUNT = 500
BLOCK_MS = 1000
GROUPS = ("cr", "pg")
"""All consumer groups."""
KEPT_MS = 60_000
"""How long entries are kept that all groups have read."""


@dataclass(frozen=True)
class Batch:
    """The result of one read."""

    events: tuple[Event, ...]
    broken: tuple[tuple[str, str], ...]
    """Entries that are not events: (stream id, what is wrong). Unless they are acknowledged, they come again."""
    last: bool = True
    """There was nothing more in the stream."""


class StreamReader:
    """One consumer group's place in the event stream, kept in Redis: a restarted reader goes on where it was.

    The consumer's name is fixed, so entries that were read but not acknowledged are read again first.

    Args:
        client: connection; blocking reads take one of its pool for themselves.
        group: `cr` or `pg`.
    """

    def __init__(self, client: redis.asyncio.Redis, group: str) -> None:
        self._client = client
        self._group = group
        self._consumer = group
        self._mark = naming.mark_key(group)
        self._own_backlog = "0"

    def start_over(self) -> None:
        """Read first, once more, what was read and not acknowledged."""
        self._own_backlog = "0"

    async def has_group(self) -> bool:
        """Whether the group exists; if not, it was never made, or Redis lost its data.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors():
            if not await self._client.exists(naming.KEY_STREAM):
                return False
            groups = await self._client.xinfo_groups(naming.KEY_STREAM)
        return any(group["name"] == self._group for group in groups)

    async def mark(self) -> str:
        """Write a mark that is lost with the data, for `make_group`.

        Raises:
            Unavailable: Redis does not answer.
        """
        word = secrets.token_hex(8)
        with redis_errors():
            await self._client.set(self._mark, word)
        return word

    async def make_group(self, mark: str) -> bool:
        """Create the group at the start of the stream; False, and none is made, if Redis lost its data after `mark`.

        There was no group that could be missing, so nothing else would tell of events that came and went meanwhile.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors():
            async with self._client.pipeline() as pipe:
                await pipe.watch(self._mark)
                if await pipe.get(self._mark) != mark:
                    return False
                pipe.multi()  # type: ignore[no-untyped-call]
                pipe.delete(self._mark)
                pipe.xgroup_create(naming.KEY_STREAM, self._group, id="0", mkstream=True)
                try:
                    await pipe.execute()
                except WatchError:
                    return False
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise
        return True

    async def gap(self) -> bool:
        """Whether the stream was trimmed past entries that this group has not read.

        Raises:
            Unavailable: Redis does not answer, or the group is gone.
        """
        with redis_errors():
            info = await self._client.xinfo_stream(naming.KEY_STREAM)
            groups = await self._client.xinfo_groups(naming.KEY_STREAM)
        mine = next((g for g in groups if g["name"] == self._group), None)
        if mine is None:
            return True
        # By places and not by counts: a group's count is off after Redis was restarted.
        if int(info["entries-added"]) == int(info["length"]):
            return False
        first = info["first-entry"]
        return first is None or _position(first[0]) > _position(mine["last-delivered-id"])

    async def read(self, block_ms: int = BLOCK_MS) -> Batch:
        """The next entries: first those that were read before and not acknowledged, then new ones, waiting up to
        `block_ms`.

        Raises:
            LookupError: the group is gone (Redis lost its data): resynchronise, and make it again.
            Unavailable: Redis does not answer.
        """
        place = self._own_backlog or ">"
        with redis_errors():
            try:
                answer = await self._client.xreadgroup(
                    self._group,
                    self._consumer,
                    {naming.KEY_STREAM: place},
                    count=READ_COUNT,
                    block=block_ms if place == ">" else None,
                )
            except ResponseError as error:
                if "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
                    raise LookupError(f"consumer group {self._group} is gone") from error
                raise
        entries = _entries(answer)
        if self._own_backlog:
            # Entries stay in the backlog until acknowledged, so go past them by id, not again from 0.
            self._own_backlog = entries[-1][0] if entries else ""
            if not entries:
                return await self.read(block_ms)
        events: list[Event] = []
        broken: list[tuple[str, str]] = []
        for stream_id, fields in entries:
            try:
                events.append(Event.from_fields(stream_id, fields))
            except ValueError as error:
                broken.append((stream_id, str(error)))
        return Batch(events=tuple(events), broken=tuple(broken), last=place == ">" and len(entries) < READ_COUNT)

    async def acknowledge(self, ids: Sequence[str]) -> None:
        """Say that these entries are done with; last of all, after their effects are durable.

        Raises:
            Unavailable: Redis does not answer.
        """
        if ids:
            with redis_errors():
                await self._client.xack(naming.KEY_STREAM, self._group, *ids)


async def trim_read(client: redis.asyncio.Redis) -> None:
    """Drop entries that both groups have acknowledged and that are older than `KEPT_MS`; nothing before both groups
    exist.

    The latest of them stays, so that the beginning of the stream is never past a reader that has read everything.

    Raises:
        Unavailable: Redis does not answer.
    """
    with redis_errors():
        if not await client.exists(naming.KEY_STREAM):
            return
        groups = {str(group["name"]): group for group in await client.xinfo_groups(naming.KEY_STREAM)}
        if not all(name in groups for name in GROUPS):
            return
        seconds, _ = await client.time()
        oldest = f"{(int(seconds) * 1000) - KEPT_MS}-0"
        for name in GROUPS:
            place = str(groups[name]["last-delivered-id"])
            if int(groups[name]["pending"]):
                place = str((await client.xpending(naming.KEY_STREAM, name))["min"] or place)
            oldest = min(oldest, place, key=_position)
        await client.xtrim(naming.KEY_STREAM, minid=oldest, approximate=True)


def _position(stream_id: object) -> tuple[int, int]:
    milliseconds, _, number = str(stream_id).partition("-")
    return int(milliseconds), int(number or 0)


def _entries(answer: object) -> list[tuple[str, dict[str, str]]]:
    """Entries of our one stream from either shape that redis-py answers with (RESP2 lists, RESP3 mapping)."""
    if not answer:
        return []
    if isinstance(answer, dict):
        batches = answer[naming.KEY_STREAM]
        found = batches[0] if batches and isinstance(batches[0], list) else batches
    else:
        found = answer[0][1]  # type: ignore[index]
    # An entry that was trimmed while it was in the backlog comes back without fields.
    return [(stream_id, fields or {}) for stream_id, fields in found]
