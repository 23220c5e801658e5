from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import ResponseError

from taskflow_core.domain import naming
from taskflow_core.domain.events import Event
from taskflow_core.ledger.connect import redis_errors

READ_COUNT = 500
BLOCK_MS = 1000


@dataclass(frozen=True)
class Batch:
    """What one read brought."""

    events: tuple[Event, ...]
    broken: tuple[tuple[str, str], ...]
    """Entries that are not events: (stream id, what is wrong). Acknowledge them, or they come again for ever."""
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
        self._own_backlog = "0"

    async def ensure_group(self) -> bool:
        """Create the group if it is missing, at the start of the stream. True if it was: then data may have been lost.

        Raises:
            Unavailable: Redis does not answer.
        """
        self._own_backlog = "0"
        with redis_errors():
            try:
                await self._client.xgroup_create(naming.KEY_STREAM, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
                return False
        return True

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
        # Trimming leaves no other trace: `max-deleted-entry-id` knows only of XDEL.
        trimmed = int(info["entries-added"]) - int(info["length"])
        return trimmed > int(mine["entries-read"] or 0)

    async def read(self, block_ms: int = BLOCK_MS) -> Batch:
        """The next entries: first those that were read before and not acknowledged, then new ones, waiting up to `block_ms`.

        Raises:
            LookupError: the group is gone (Redis lost its data); call `ensure_group` and resynchronise.
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
