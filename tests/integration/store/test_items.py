from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.domain.items import ItemHistory, ItemRow, ItemState
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import TaskStatus
from taskflow_core.errors import Conflict
from taskflow_core.store import items, repository
from taskflow_core.store.engine import transaction
from tests.unit.taskflow_operator.builders import make_task

pytestmark = pytest.mark.integration
NOW = datetime(2030, 1, 1, tzinfo=UTC)
OK, BAD = ItemState.SUCCEEDED, ItemState.FAILED


def failed(index: int, message: str = "no") -> ItemRow:
    return ItemRow(index, index, BAD, 3, reason=Reason.HANDLER_ERROR, error_type="ValueError", message=message)


async def store(engine: AsyncEngine, *rows: ItemRow, uid: str = "u") -> None:
    async with transaction(engine) as connection:
        await items.store_items(connection, {uid: rows}, NOW)


async def past(engine: AsyncEngine, uid: str = "u") -> ItemHistory:
    async with transaction(engine) as connection:
        return await items.past_of(connection, uid)


async def listed(engine: AsyncEngine, **filters: object) -> Sequence[ItemRow]:
    async with transaction(engine) as connection:
        return await items.items_of(connection, "u", **filters)  # type: ignore[arg-type]


async def test_what_ended_is_summed_and_neighbours_are_one_range(engine: AsyncEngine) -> None:
    await store(engine, ItemRow(0, 9, OK, 1), ItemRow(10, 10, OK, 2, result={"a": [1, None]}), failed(11))
    await store(engine, ItemRow(20, 29, OK, 1), failed(15))
    await store(engine, ItemRow(0, 5, OK, 1), uid="other")
    assert await past(engine) == ItemHistory(
        RangeSet.parse("0-11,15,20-29"), succeeded=21, failed=2, retried=3, failed_first=RangeSet.parse("11,15")
    )
    assert await past(engine, "nobody") == ItemHistory()


async def test_items_are_listed_by_index_and_state(engine: AsyncEngine) -> None:
    rows = [ItemRow(0, 9, OK, 1), failed(10), ItemRow(11, 11, OK, 1, result=0), failed(12, "x")]
    await store(engine, *reversed(rows))
    assert await listed(engine) == rows
    assert await listed(engine, state=BAD) == [rows[1], rows[3]]
    assert await listed(engine, after=9, limit=2) == rows[1:3]


@pytest.mark.parametrize("again", [(0, 9), (5, 5), (9, 12), (0, 100), (8, 9)])
async def test_an_item_that_ended_does_not_end_again(engine: AsyncEngine, again: tuple[int, int]) -> None:
    await store(engine, ItemRow(0, 9, OK, 1), ItemRow(40, 49, OK, 1))
    with pytest.raises(Conflict, match=r"1 of . stretches of items have ended before"):
        await store(engine, ItemRow(20, 29, OK, 1), ItemRow(*again, BAD, 1, reason=Reason.WORKER_LOST))
    # Nothing of it was stored.
    assert (await past(engine)).ended == RangeSet.parse("0-9,40-49")


async def test_what_postgres_cannot_hold_is_replaced(engine: AsyncEngine) -> None:
    await store(engine, ItemRow(0, 0, OK, 1, result={"a\0": float("nan")}), failed(1, "\ud800\0\t\\N\n"))
    first, second = await listed(engine)
    assert first.result == {"a\ufffd": "NaN"}
    assert second.message == "\ufffd\ufffd\t\\N\n"


async def test_the_failed_items_of_an_array_are_told_to_its_own_namespace_once_it_has_ended(
    engine: AsyncEngine,
) -> None:
    async def asked(namespace: str, uid: str) -> RangeSet | None:
        async with transaction(engine) as connection:
            return await items.failed_of(connection, namespace, uid)

    ended = TaskStatus(phase=Phase.FAILED)
    async with transaction(engine) as connection:
        await repository.upsert_tasks(
            connection,
            [
                make_task("ended", status=ended, array={"count": 9}),
                make_task("open", status=TaskStatus(phase=Phase.RUNNING), array={"count": 9}),
                make_task("plain", status=ended),
            ],
        )
    await store(engine, ItemRow(0, 3, OK, 1), failed(4), failed(5), failed(8), uid="ended")
    assert await asked("team", "ended") == RangeSet.parse("4-5,8")
    for namespace, uid in (("other", "ended"), ("team", "open"), ("team", "plain"), ("team", "nobody")):
        assert await asked(namespace, uid) is None


async def test_a_hundred_thousand_rows_are_stored_and_read_in_seconds(engine: AsyncEngine) -> None:
    for start in range(0, 100_000, 10_000):
        await store(engine, *(ItemRow(index, index, OK, 1, result=index) for index in range(start, start + 10_000)))
    found = await past(engine)
    assert (found.ended, found.succeeded) == (RangeSet([(0, 99_999)]), 100_000)
