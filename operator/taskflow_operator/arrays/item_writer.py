from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.errors import Unavailable

MOST_ROWS = 50_000
"""In one transaction, about."""


class ItemStore(Protocol):
    """The database. Methods raise `Unavailable` and may be repeated."""

    async def past(self, uid: str) -> ItemHistory:
        """What has ended of an array."""

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        """The failed items of an array that has ended; None if there is none of that uid."""

    async def store_items(self, ended: Mapping[str, Sequence[ItemRow]]) -> None:
        """Add items that ended, in one transaction; raises Conflict if one has ended before."""


@dataclass(frozen=True)
class _Wanted:
    uid: str
    rows: Sequence[ItemRow]
    told: asyncio.Future[None]


class ItemWriter:
    """Writes items of all arrays, in as few transactions as they come in: while one runs, the next ones gather."""

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self._waiting: list[_Wanted] = []
        self._changed = asyncio.Event()

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
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Wanted(uid, rows, future))
        self._changed.set()
        await future

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                batch: list[_Wanted] = []
                while self._waiting and sum(len(wanted.rows) for wanted in batch) < MOST_ROWS:
                    batch.append(self._waiting.pop(0))
                await self._write(batch)

    async def _write(self, batch: Sequence[_Wanted]) -> None:
        ended: dict[str, list[ItemRow]] = {}
        for wanted in batch:
            ended.setdefault(wanted.uid, []).extend(wanted.rows)
        try:
            await self._store.store_items(ended)
        except asyncio.CancelledError:
            for wanted in batch:
                wanted.told.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whose rows they are has to know
            if len(batch) > 1 and not isinstance(error, Unavailable):
                # One of them is at fault: each for itself.
                for wanted in batch:
                    await self._write([wanted])
                return
            _tell(batch, error)
        else:
            _tell(batch, None)


def _tell(batch: Sequence[_Wanted], error: Exception | None) -> None:
    for wanted in batch:
        if wanted.told.done():
            continue
        if error is None:
            wanted.told.set_result(None)
        else:
            wanted.told.set_exception(error)
