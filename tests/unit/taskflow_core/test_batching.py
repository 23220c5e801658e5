from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from taskflow_core.batching import Batcher, isolate_failures
from taskflow_core.errors import Unavailable


class Server:
    """Answers each item with twice its value; refuses negative ones, and everything while it is down."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.down = False

    async def run(self, batch: Sequence[int]) -> list[int]:
        self.calls.append(list(batch))
        await self.answers.wait()
        if self.down:
            raise Unavailable("down")
        if any(item < 0 for item in batch):
            raise ValueError("negative")
        return [2 * item for item in batch]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_items_that_come_while_a_call_runs_go_with_the_next() -> None:
    server = Server()
    server.answers.clear()
    batcher = Batcher(server.run)
    first = asyncio.create_task(batcher.submit(1))
    await settled()
    others = [asyncio.create_task(batcher.submit(item)) for item in (2, 3)]
    await settled()
    server.answers.set()
    assert [await first, *await asyncio.gather(*others)] == [2, 4, 6]
    assert server.calls == [[1], [2, 3]]


async def test_one_item_at_fault_fails_alone() -> None:
    server = Server()
    answers = await asyncio.gather(*map(Batcher(server.run).submit, (1, -1, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, ValueError, int]
    assert server.calls == [[1, -1, 3], [1], [-1], [3]]


async def test_an_outage_fails_everybody_who_waits_and_nobody_later() -> None:
    server = Server()
    server.answers.clear()
    server.down = True
    batcher = Batcher(server.run)
    first = asyncio.create_task(batcher.submit(1))
    await settled()
    second = asyncio.create_task(batcher.submit(2))
    await settled()
    server.answers.set()
    for each in (first, second):
        with pytest.raises(Unavailable):
            await each
    server.down = False
    assert await batcher.submit(3) == 6
    assert server.calls == [[1], [3]]


async def test_a_batch_is_bounded_by_weight() -> None:
    server = Server()
    batcher = Batcher(server.run, weight=lambda item: item, max_weight=5)
    assert await asyncio.gather(*map(batcher.submit, (3, 3, 1))) == [6, 6, 2]
    assert server.calls == [[3, 3], [1]]


async def test_stopping_cancels_the_call_and_all_who_wait() -> None:
    server = Server()
    server.answers.clear()
    batcher = Batcher(server.run)
    waiting = [asyncio.create_task(batcher.submit(1))]
    await settled()
    waiting.append(asyncio.create_task(batcher.submit(2)))
    await settled()
    await batcher.stop()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, asyncio.CancelledError]


async def test_failures_are_isolated_and_outages_are_raised() -> None:
    done: list[str] = []
    failed: list[str] = []

    async def run(items: Sequence[str]) -> None:
        if "down" in items:
            raise Unavailable("down")
        if "bad" in items:
            raise ValueError("bad")
        done.extend(items)

    await isolate_failures(["a", "bad", "b"], run, lambda item, _: failed.append(item))
    assert (done, failed) == (["a", "b"], ["bad"])
    with pytest.raises(Unavailable):
        await isolate_failures(["a", "down"], run, lambda item, _: failed.append(item))
    assert failed == ["bad"]


async def test_a_call_without_items_that_fails_is_not_hidden() -> None:
    async def run(_: Sequence[str]) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await isolate_failures([], run, lambda *_: None)
