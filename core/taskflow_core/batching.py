"""Runs calls that arrive close together as one, and finds the one at fault when a batch fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from taskflow_core.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Gathers items while a call runs, and hands all of them to the next call.

    A call that raises `Unavailable` fails for everybody who waits. Any other error is the fault of one item: each item
    of the batch then gets a call of its own, and the error reaches the caller whose item raised it.

    Args:
        run: handles a batch; returns one result for each item, in the same order.
        gather_seconds: how long the first item waits for others.
        weight: of an item.
        max_weight: a batch takes further items until it has this weight; None is without a bound.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        gather_seconds: float | None = None,
        weight: Callable[[T], int] = lambda _: 1,
        max_weight: int | None = None,
    ) -> None:
        self._run = run
        self._gather_seconds = gather_seconds
        self._weight = weight
        self._max_weight = max_weight
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """The item's result, once its batch has run.

        Raises:
            Unavailable: what the call needs does not answer; nobody knows what was done.
            Exception: what the call raises for this item.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await future

    async def stop(self) -> None:
        """Cancel the call that runs and all who wait."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        for _, future in self._waiting:
            future.cancel()
        self._waiting = []

    async def _flush(self) -> None:
        try:
            if self._gather_seconds is not None:
                await asyncio.sleep(self._gather_seconds)
            while self._waiting:
                await self._run_batch(self._next())
        finally:
            self._flushing = None

    def _next(self) -> list[tuple[T, asyncio.Future[R]]]:
        if self._max_weight is None:
            batch, self._waiting = self._waiting, []
            return batch
        count = weight = 0
        while count < len(self._waiting) and weight < self._max_weight:
            weight += self._weight(self._waiting[count][0])
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _run_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except asyncio.CancelledError:
            _each(batch, lambda future: future.cancel())
            raise
        except Unavailable as error:
            # Whoever came meanwhile would wait as long for the same answer.
            failed, self._waiting = batch + self._waiting, []
            _each(failed, partial(_fail, error))
        except Exception as error:  # noqa: BLE001 - it reaches the caller whose item it is
            await self._isolate(batch, error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                # A caller that gave up has cancelled its future.
                if not future.done():
                    future.set_result(result)

    async def _isolate(self, batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        if len(batch) == 1:
            _fail(error, batch[0][1])
            return
        for each in batch:
            await self._run_batch([each])


def _each(batch: list[tuple[T, asyncio.Future[R]]], act: Callable[[asyncio.Future[R]], object]) -> None:
    for _, future in batch:
        act(future)


def _fail(error: Exception, future: asyncio.Future[R]) -> None:
    if not future.done():
        future.set_exception(error)


async def isolate_failures(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Awaitable[None]],
    failed: Callable[[T, Exception], None],
    *,
    shared: type[Exception] = Unavailable,
) -> None:
    """Run a batch. If it fails, run each item alone, so that one item at fault does not stop the others.

    Args:
        items: the batch.
        run: handles items; must be safe to repeat.
        failed: called with each item that fails alone, and its error.
        shared: errors of this type concern all items, and are raised.

    Raises:
        Exception: of type `shared`, from `run`.
    """
    try:
        await run(items)
    except shared:
        raise
    except Exception as error:
        if not items:
            raise
        if len(items) == 1:
            failed(items[0], error)
            return
        for item in items:
            await isolate_failures([item], run, failed, shared=shared)
