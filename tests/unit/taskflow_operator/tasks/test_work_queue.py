from __future__ import annotations

import asyncio

import pytest

from taskflow_operator.tasks import work_queue as module
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.unit.taskflow_operator.fakes import at


def work_queue() -> WorkQueue:
    """Uids are named for their namespaces: `a-1` is in `a`."""
    return WorkQueue(namespace_of=lambda uid: uid.partition("-")[0])


async def test_namespaces_take_turns() -> None:
    due = work_queue()
    for uid in ("a-1", "a-2", "a-3", "b-1"):
        due.add(uid)
    assert await due.take(2) == ["a-1", "b-1"]
    due.add("c-1")
    assert await due.take(10) == ["a-2", "c-1", "a-3"]
    assert not due


async def test_what_is_looked_at_to_be_sure_has_one_share_whatever_its_namespaces() -> None:
    due = work_queue()
    due.add_resync([f"{namespace}-{number}" for namespace in "abc" for number in range(100)])
    due.add("d-1")
    assert "d-1" in await due.take(2)
    assert len(due) == 299


async def test_news_does_not_wait_in_the_sweep_and_the_sweep_does_not_put_news_back() -> None:
    due = work_queue()
    due.add_resync([f"a-{number}" for number in range(100)])
    due.add("a-99")
    due.add_resync(["a-99"])
    assert "a-99" in await due.take(2)
    assert len(due) == 98


async def test_what_was_put_back_comes_first_in_its_order() -> None:
    due = work_queue()
    for number in range(4):
        due.add(f"a-{number}")
    taken = await due.take(2)
    due.add("a-0")
    due.put_back(taken)
    assert await due.take(10) == ["a-0", "a-1", "a-2", "a-3"]


async def test_a_clock_that_is_set_forward_makes_due_what_was_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOCK_SECONDS", 0.01)
    clock = [at(0)]
    queue = WorkQueue(now=lambda: clock[0])
    queue.add_at("a", at(3600))
    taking = asyncio.create_task(queue.take(1))
    await asyncio.sleep(0.05)
    assert not taking.done()
    clock[0] = at(3600)
    assert await taking == ["a"]
