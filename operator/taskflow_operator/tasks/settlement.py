from __future__ import annotations

import asyncio
from collections.abc import Sequence

from taskflow_core.domain.events import EventKind
from taskflow_core.ledger.operator import Attempt, OperatorLedger
from taskflow_operator.runtime.dependency_health import retry_until_available

GATHER_SECONDS = 0.01
_Wanted = tuple[Attempt, EventKind, asyncio.Future[None]]


class Settlement:
    """Closes attempts in the ledger: those that end within 10 ms of each other in one round trip.

    A round trip costs the operator more CPU than the script costs Redis, and under load attempts end all the time.
    """

    def __init__(self, ledger: OperatorLedger) -> None:
        self._ledger = ledger
        self._wanted: list[_Wanted] = []
        self._flushing: asyncio.Task[None] | None = None

    async def settle(self, attempt: Attempt, kind: EventKind) -> None:
        """Returns when it is closed, which lasts as long as Redis is away. Raises what a fault of this attempt raises."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.append((attempt, kind, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await future

    async def _flush(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        while self._wanted:
            batch, self._wanted = self._wanted, []
            await self._close(batch)
        self._flushing = None

    async def _close(self, batch: Sequence[_Wanted]) -> None:
        try:
            await retry_until_available(
                lambda: self._ledger.settle_all([(attempt, kind) for attempt, kind, _ in batch])
            )
        except Exception as error:  # noqa: BLE001 - told to whoever waits for the one at fault
            if len(batch) == 1:
                _answer(batch[0][2], error)
                return
            for each in batch:
                await self._close([each])
        else:
            for _, _, future in batch:
                _answer(future, None)


def _answer(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        # Whoever waited was cancelled: the process ends.
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
