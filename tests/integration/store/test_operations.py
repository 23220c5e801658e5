import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.store import operations
from taskflow_core.store.engine import transaction
from taskflow_core.store.operations import MAX_RUNNING, OperationRow

pytestmark = pytest.mark.integration
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def made(number: int, **fields: Any) -> OperationRow:
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "namespace": "team-a",
        "verb": "cancel",
        "filter": {"queue": "q"},
        "caller": {"username": "alice"},
        "state": "Running",
        "problems": [],
        "created_at": BEGUN.replace(second=number),
    }
    return OperationRow(**(values | fields))


async def start(engine: AsyncEngine, row: OperationRow) -> bool:
    async with transaction(engine) as connection:
        return await operations.start(connection, row)


async def take(engine: AsyncEngine, holder: str) -> OperationRow | None:
    async with transaction(engine) as connection:
        return await operations.take(connection, holder)


async def save(engine: AsyncEngine, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
    async with transaction(engine) as connection:
        return await operations.save(connection, row, holder, keep=keep)


async def test_one_process_at_a_time_has_it_and_the_next_goes_on_where_it_was(engine: AsyncEngine) -> None:
    await start(engine, made(1))
    await start(engine, made(2))
    both = await asyncio.gather(take(engine, "a"), take(engine, "b"))
    assert {row.id for row in both if row} == {made(1).id, made(2).id}
    assert await take(engine, "c") is None
    mine = both[0]
    assert mine is not None
    further = replace(
        mine, matched=50, done=49, failed=1, after_uid="u", after_created_at=BEGUN, problems=[{"name": "x"}]
    )
    assert await save(engine, further, "a")
    # It died; its lease runs out.
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE operations SET leased_until = now() - interval '1 second'"))
    found = [await take(engine, "c"), await take(engine, "c")]
    assert further in found
    assert not await save(engine, replace(further, done=99), "a")
    ended = replace(further, state="Done", finished_at=BEGUN)
    assert await save(engine, ended, "c", keep=False)
    async with transaction(engine) as connection:
        assert await operations.get(connection, "team-a", ended.id) == ended
        assert await operations.get(connection, "team-b", ended.id) is None


async def test_one_that_is_given_back_waits_behind_those_that_wait_already(engine: AsyncEngine) -> None:
    for number in (1, 2):
        await start(engine, made(number))
    turns = []
    for _ in range(4):
        row = await take(engine, "a")
        assert row is not None
        turns.append(row.id)
        assert await save(engine, row, "a", keep=False)
    assert turns == [made(number).id for number in (1, 2, 1, 2)]


async def test_a_deleted_one_cannot_be_saved_any_more(engine: AsyncEngine) -> None:
    await start(engine, made(1))
    row = await take(engine, "a")
    assert row is not None
    async with transaction(engine) as connection:
        assert not await operations.remove(connection, "team-b", row.id)
        assert await operations.remove(connection, "team-a", row.id)
    assert not await save(engine, row, "a")


async def test_a_namespace_has_so_many_at_a_time_even_if_they_begin_together(engine: AsyncEngine) -> None:
    begun = await asyncio.gather(*(start(engine, made(number)) for number in range(MAX_RUNNING + 5)))
    assert sum(begun) == MAX_RUNNING
    assert await start(engine, made(50, namespace="team-b"))


async def test_pages_are_newest_first(engine: AsyncEngine) -> None:
    rows = [made(number) for number in range(5)]
    for row in rows:
        await start(engine, row)
    async with transaction(engine) as connection:
        first = await operations.page(connection, "team-a", after=None, limit=3)
        second = await operations.page(connection, "team-a", after=(first[-1].created_at, first[-1].id), limit=3)
    assert [*first, *second] == rows[::-1]
