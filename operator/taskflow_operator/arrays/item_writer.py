"""Writes the items of arrays that ended to PostgreSQL, those of several arrays in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from taskflow_core.batching import Batcher
from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.ranges import RangeSet

MAX_ROWS = 50_000
"""A transaction takes further arrays until it has this many rows."""


class ItemStore(Protocol):
    """The database. Methods raise `Unavailable` and may be repeated."""

    async def past(self, uid: str) -> ItemHistory:
        """What has ended of an array."""

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        """The failed items of an array that has ended; None if there is none of that uid."""

    async def store_items(self, ended: Mapping[str, Sequence[ItemRow]]) -> None:
        """Add items that ended, in one transaction; raises Conflict if one has ended before."""


class ItemWriter:
    """Writes items of all arrays. While one transaction runs, the next one gathers."""

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self._batcher: Batcher[tuple[str, Sequence[ItemRow]], None] = Batcher(
            self._write, weight=lambda entry: len(entry[1]), max_weight=MAX_ROWS
        )

    async def past(self, uid: str) -> ItemHistory:
        """What has ended of an array.

        Raises:
            Unavailable: the database does not answer.
        """
        return await self._store.past(uid)

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        """The failed items of an array that has ended; None if the namespace has none of that uid.

        Raises:
            Unavailable: the database does not answer.
        """
        return await self._store.failed_of(namespace, uid)

    async def store(self, uid: str, rows: Sequence[ItemRow]) -> None:
        """Add items that ended; returns when they are stored.

        Raises:
            Unavailable: the database does not answer; nothing was stored.
            Conflict: one of them has ended before; nothing was stored.
        """
        await self._batcher.submit((uid, rows))

    async def stop(self) -> None:
        """Cancel the transaction that runs."""
        await self._batcher.stop()

    async def _write(self, batch: Sequence[tuple[str, Sequence[ItemRow]]]) -> list[None]:
        ended: dict[str, list[ItemRow]] = {}
        for uid, rows in batch:
            ended.setdefault(uid, []).extend(rows)
        await self._store.store_items(ended)
        return [None] * len(batch)
