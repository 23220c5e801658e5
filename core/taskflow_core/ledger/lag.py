"""How far the consumer groups of the event stream are behind."""

from __future__ import annotations

from dataclasses import dataclass

import redis.asyncio

from taskflow_core.domain import naming
from taskflow_core.ledger.connect import redis_errors


@dataclass(frozen=True)
class Lag:
    """How far a consumer group of the event stream is behind."""

    group: str
    entries: int
    """Entries that it has not acknowledged, read or not."""
    seconds: float
    """Age of the oldest of them; 0 when there is none."""


async def stream_lags(client: redis.asyncio.Redis) -> list[Lag]:
    """How far each group is behind; none before the stream exists.

    Raises:
        Unavailable: Redis does not answer.
    """
    with redis_errors():
        if not await client.exists(naming.KEY_STREAM):
            return []
        seconds, micros = await client.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        last = str((await client.xinfo_stream(naming.KEY_STREAM))["last-generated-id"])
        groups = await client.xinfo_groups(naming.KEY_STREAM)
        found: list[Lag] = []
        for group in groups:
            name, pending = str(group["name"]), int(group["pending"])
            # Redis cannot tell how many are unread after entries in the middle were deleted; nobody deletes any.
            # By its place, too: the count is off after Redis was restarted.
            unread = 0 if str(group["last-delivered-id"]) == last else int(group.get("lag") or 0)
            oldest = await _oldest(client, name, str(group["last-delivered-id"]), pending=pending, unread=unread)
            age = max(now_ms - oldest, 0) / 1000 if oldest is not None else 0.0
            found.append(Lag(group=name, entries=pending + unread, seconds=age))
    return found


async def _oldest(client: redis.asyncio.Redis, group: str, delivered: str, *, pending: int, unread: int) -> int | None:
    if pending:
        summary = await client.xpending(naming.KEY_STREAM, group)
        if summary["min"]:
            return _ms(summary["min"])
    if unread:
        first = await client.xrange(naming.KEY_STREAM, min=f"({delivered}", count=1)
        if first:
            return _ms(first[0][0])
    return None


def _ms(stream_id: object) -> int:
    return int(str(stream_id).partition("-")[0])
