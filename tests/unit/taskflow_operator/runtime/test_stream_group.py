from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from taskflow_core.ledger.stream import Batch
from taskflow_operator.runtime.stream_group import consume_group
from tests.unit.taskflow_operator.fakes import at_once, eventually


class Group:
    """A consumer group that may be missing, or behind what was trimmed."""

    def __init__(self, *, there: bool, gap: bool = False) -> None:
        self.there = there
        self.trimmed = gap
        self.reads = 0
        self.lost_again = 0

    async def has_group(self) -> bool:
        return self.there

    async def mark(self) -> str:
        return "word"

    async def make_group(self, mark: str) -> bool:
        self.lost_again -= 1
        self.there = mark == "word" and self.lost_again < 0
        return self.there

    def start_over(self) -> None:
        assert self.there

    async def gap(self) -> bool:
        return self.trimmed

    async def read(self) -> Batch:
        self.reads += 1
        await asyncio.sleep(0.001)
        return Batch((), ())


async def take(*_: Any) -> None:
    raise AssertionError("there is nothing to take")


def reading(group: Group, data_lost: Callable[[str], Any]) -> asyncio.Task[None]:
    return asyncio.create_task(consume_group(cast("Any", group), take, data_lost, at_once, gather_seconds=0.0))


async def test_a_missing_group_is_made_only_after_what_was_lost_has_been_made_up_for() -> None:
    group, made_up = Group(there=False), asyncio.get_running_loop().create_future()
    told: list[str] = []

    def data_lost(why: str) -> asyncio.Future[None]:
        told.append(why)
        return made_up

    loop = reading(group, data_lost)
    await eventually(lambda: told)
    await asyncio.sleep(0.01)
    # An operator that dies here leaves no group, so the next one finds that data was lost.
    assert not group.there
    made_up.set_result(None)
    await eventually(lambda: group.reads)
    assert group.there
    assert told == ["its place in the stream was lost"]
    loop.cancel()


async def test_what_is_lost_while_a_loss_is_made_up_for_is_made_up_for_too() -> None:
    group, told = Group(there=False), list[str]()
    group.lost_again = 2
    loop = reading(group, told.append)
    await eventually(lambda: group.reads)
    assert told == ["its place in the stream was lost"] * 3
    loop.cancel()


async def test_a_group_that_is_there_has_lost_nothing() -> None:
    group, told = Group(there=True), list[str]()
    loop = reading(group, told.append)
    await eventually(lambda: group.reads > 2)
    assert told == []
    loop.cancel()


async def test_a_trimmed_stream_is_made_up_for_before_it_is_read_on() -> None:
    group, told = Group(there=True, gap=True), list[str]()
    loop = reading(group, told.append)
    await eventually(lambda: group.reads)
    assert told == ["the stream was trimmed before it was read"]
    loop.cancel()
