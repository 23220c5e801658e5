"""Collects the stream entries that are done, and acknowledges them in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Protocol

from taskflow_core.domain.events import EntryId
from taskflow_core.errors import Unavailable
from taskflow_operator.runtime import dependency_health

INTERVAL_SECONDS = 0.05
RETRY_SECONDS = 1.0


class Group(Protocol):
    """A consumer group of the event stream. Raises `Unavailable`."""

    async def acknowledge(self, entries: Iterable[EntryId]) -> None:
        """These entries are done; harmless to repeat."""


class Acknowledgements:
    """Entries of one consumer group that are done and not acknowledged yet. An entry is added after what it caused is
    durable.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._done: list[EntryId] = []

    def add(self, entry: EntryId) -> None:
        """This entry is done."""
        self._done.append(entry)

    def extend(self, entries: Iterable[EntryId]) -> None:
        """These entries are done."""
        self._done += entries

    def pending(self) -> Collection[EntryId]:
        """Entries that are done and not acknowledged yet."""
        return set(self._done)

    async def flush(self) -> None:
        """Acknowledge everything that is done.

        Raises:
            Unavailable: Redis does not answer; the entries are kept.
        """
        done, self._done = self._done, []
        try:
            await self._group.acknowledge(done)
        except Unavailable:
            self._done = done + self._done
            raise

    async def run(self) -> None:
        """Acknowledge until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.flush()
            except Unavailable as error:
                dependency_health.failed(error)
                await asyncio.sleep(RETRY_SECONDS)
