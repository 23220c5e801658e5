import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import repository
from taskflow_core.store.engine import create_engine, transaction
from taskflow_core.store.folding import fold
from taskflow_core.store.repository import Filter
from taskflow_core.store.tables import attempts, tasks, timeline
from taskflow_local.stack import Stack
from tests.unit.taskflow_core.store.builders import UID, event, snapshot, story

pytestmark = pytest.mark.integration
NAME = f"task-{UID[:8]}"


async def _apply(engine: AsyncEngine, *events: Event) -> int:
    async with transaction(engine) as connection:
        return await repository.apply_events(connection, events)


async def _everything(engine: AsyncEngine) -> list[list[tuple[Any, ...]]]:
    """All rows, but for when they were written."""
    columns = [column for column in tasks.c if column.name != "updated_at"]
    async with transaction(engine) as connection:
        found = [
            await connection.execute(select(*columns).order_by(tasks.c.uid)),
            await connection.execute(select(attempts).order_by(attempts.c.uid, attempts.c.attempt)),
            await connection.execute(select(timeline).order_by(timeline.c.event_id)),
        ]
    return [[tuple(row) for row in rows] for rows in found]


async def _empty(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text("TRUNCATE tasks, attempts, timeline"))


async def test_events_one_by_one_tell_the_story_of_a_task(engine: AsyncEngine) -> None:
    phases: list[str] = []
    for told in story(lost=1):
        await _apply(engine, told)
        async with transaction(engine) as connection:
            row = await repository.get_task(connection, "team-a", NAME)
        assert row is not None
        if not phases or phases[-1] != row.phase:
            phases.append(row.phase)
    assert phases == ["Pending", "Queued", "Running", "Pending", "Queued", "Running", "Succeeded"]
    assert row is not None
    assert (row.result, row.attempt, row.spec["kwargs"]) == ({"rows": 3}, 2, {"n": 1})
    async with transaction(engine) as connection:
        runs = await repository.get_attempts(connection, UID)
        lines = await repository.get_timeline(connection, UID)
    assert [(run.outcome, run.worker, run.error_type, run.run_ms) for run in runs] == [
        ("failed", "w-1", "ValueError", 5),
        ("succeeded", "w-2", None, 7),
    ]
    assert [line.kind for line in lines] == [told.kind for told in story(lost=1)]


async def test_any_order_and_any_repeats_in_any_batches_end_in_the_same_rows(engine: AsyncEngine) -> None:
    uids = [f"0b0e7d8e-0000-4000-8000-{number:012d}" for number in range(20)]
    told = [one for number, uid in enumerate(uids) for one in story(uid, first=number * 50, lost=number % 3)]
    # A few end in the middle, so that the winner is a start and not a snapshot.
    told += story("ffff0000-0000-4000-8000-000000000000", first=2000, lost=1)[:-2]
    await _apply(engine, *told)
    expected = await _everything(engine)
    assert {row[7] for row in expected[0]} == {"Succeeded", "Running"}
    for seed in range(5):
        chance = random.Random(seed)
        await _empty(engine)
        shuffled = [*told, *chance.choices(told, k=100)]
        chance.shuffle(shuffled)
        while shuffled:
            size = chance.randint(1, 40)
            await _apply(engine, *shuffled[:size])
            del shuffled[:size]
        assert await _everything(engine) == expected
    assert await _apply(engine, *told) == len(told)
    assert await _everything(engine) == expected


async def test_a_start_that_comes_before_its_task_is_not_forgotten(engine: AsyncEngine) -> None:
    await _apply(engine, event(EventKind.STARTED, 2, worker="w-1"))
    async with transaction(engine) as connection:
        assert await repository.get_task(connection, "team-a", NAME) is None
        assert [run.worker for run in await repository.get_attempts(connection, UID)] == ["w-1"]
    await _apply(engine, snapshot(EventKind.QUEUED, 1))
    async with transaction(engine) as connection:
        row = await repository.get_task(connection, "team-a", NAME)
    assert row is not None
    assert (row.phase, row.reason) == ("Running", "Started")


async def test_what_postgresql_cannot_hold_is_replaced_and_stored(engine: AsyncEngine) -> None:
    poisoned = snapshot(
        EventKind.SETTLED, 3, phase="Failed", message="a\x00b", result={"k\x00": ["\ud800", float("nan")]}
    )
    assert await _apply(engine, event(EventKind.FAILED, 2, reason="HandlerError", message="\x00"), poisoned) == 2
    async with transaction(engine) as connection:
        row = await repository.get_task(connection, "team-a", NAME)
    assert row is not None
    assert (row.message, row.result) == ("a\ufffdb", {"k\ufffd": ["\ufffd", "NaN"]})


async def test_an_event_that_postgresql_refuses_does_not_block_those_beside_it(engine: AsyncEngine) -> None:
    good = [one for n in range(30) for one in story(f"{n:08d}-0000-4000-8000-000000000000", first=n * 10, lost=0)]
    too_long_for_an_index = snapshot(EventKind.QUEUED, 995, uid="x" + UID, name=random.Random(1).randbytes(9000).hex())
    too_large_for_bigint = event(EventKind.FAILED, 996, uid="y" + UID, reason="HandlerError", runMs=2**80)
    unreadable = event(EventKind.SETTLED, 997, uid="z" + UID, phase="Nonsense")
    bad = [too_long_for_an_index, too_large_for_bigint, unreadable]
    mixed = [*good[:40], *bad, *good[40:]]
    assert await _apply(engine, *mixed) == len(good)
    stored = await _everything(engine)
    assert [len(rows) for rows in stored] == [30, 30, len(good)]


async def test_a_missing_schema_is_not_the_fault_of_the_events(database: DatabaseSettings) -> None:
    engine = create_engine(database, application_name="test")
    with pytest.raises(Unavailable, match=r"run python -m taskflow_core\.store\.migrate"):
        await _apply(engine, *story())
    await engine.dispose()


async def test_a_mirrored_task_neither_undoes_nor_outruns_events(engine: AsyncEngine) -> None:
    body: dict[str, Any] = {
        "metadata": {"uid": UID, "namespace": "team-a", "name": NAME, "creationTimestamp": "2026-09-20T12:00:00Z"},
        "spec": {"handler": "a.b"},
    }
    waiting = Task.from_object(body | {"status": {"phase": "Pending", "attempt": 2, "reason": "BackingOff"}})
    told = story(lost=1)
    expected = ["Pending", "Queued", "Running", "Running", "Running", "Succeeded"]
    async with transaction(engine) as connection:
        assert await repository.upsert_tasks(connection, [waiting]) == 1
    seen = []
    for one in told[told.index(next(e for e in told if e.attempt == 2)) - 1 :]:
        await _apply(engine, one)
        async with transaction(engine) as connection:
            await repository.upsert_tasks(connection, [waiting])
            row = await repository.get_task(connection, "team-a", NAME)
        assert row is not None
        seen.append(row.phase)
    assert seen == expected


async def test_two_writers_of_the_same_tasks_do_not_lock_each_other_up(engine: AsyncEngine) -> None:
    told = [one for n in range(40) for one in story(f"{n:08d}-0000-4000-8000-000000000000", first=n * 10, lost=0)]
    backwards = list(reversed(told))
    await asyncio.gather(*(_apply(engine, *part) for part in (told, backwards, told, backwards)))
    assert len((await _everything(engine))[0]) == 40


async def test_pages_are_stable_while_rows_come_in_and_times_are_equal(engine: AsyncEngine) -> None:
    base = datetime(2026, 9, 20, tzinfo=UTC)
    (template,) = fold([snapshot(EventKind.QUEUED, 1)]).tasks
    rows = [
        # Ten rows share each time, so that only the uid tells them apart.
        template | {"uid": f"{n:08d}-x", "name": f"n{n}", "created_at": base + timedelta(seconds=n // 10)}
        for n in range(10_000)
    ]
    async with transaction(engine) as connection:
        await connection.execute(insert(tasks), rows)
    seen: list[str] = []
    after = None
    for number in range(1000):
        async with transaction(engine) as connection:
            page = await repository.list_tasks(connection, "team-a", after=after, limit=301)
            newer = template | {"uid": f"new-{number}", "created_at": base + timedelta(days=1)}
            await connection.execute(insert(tasks), [newer])
        if not page:
            break
        seen += [row.uid for row in page]
        after = page[-1].created_at, page[-1].uid
    assert seen == [row["uid"] for row in reversed(rows)]


async def test_pages_are_read_from_an_index_however_deep(engine: AsyncEngine) -> None:
    (template,) = fold([snapshot(EventKind.QUEUED, 1)]).tasks
    base = datetime(2026, 9, 20, tzinfo=UTC)
    rows = [template | {"uid": f"{n:08d}", "created_at": base + timedelta(seconds=n)} for n in range(10_000)]
    async with transaction(engine) as connection:
        await connection.execute(insert(tasks), rows)
        await connection.execute(text("ANALYZE tasks"))
        for where in ("", "AND phase = 'Queued'"):
            plan = await connection.execute(
                text(
                    f"EXPLAIN SELECT uid FROM tasks WHERE namespace = 'team-a' {where} AND (created_at, uid)"
                    " < (timestamptz '2026-09-20 01:00:00+00', '5') ORDER BY created_at DESC, uid DESC LIMIT 50"
                )
            )
            steps = "\n".join(row[0] for row in plan)
            assert "ix_tasks_page" in steps
            assert "Sort" not in steps


async def test_filters_narrow_a_list(engine: AsyncEngine) -> None:
    await _apply(
        engine,
        snapshot(EventKind.QUEUED, 1, uid="a"),
        snapshot(EventKind.QUEUED, 2, uid="b", spec={"handler": "x.y", "queue": "slow"}),
        snapshot(EventKind.PENDING, 3, uid="c", phase="Pending", namespace="team-b"),
    )
    async with transaction(engine) as connection:

        async def uids(**filters: Any) -> set[str]:
            return {row.uid for row in await repository.list_tasks(connection, "team-a", Filter(**filters))}

        assert await uids() == {"a", "b"}
        assert await uids(queue="slow") == {"b"}
        assert await uids(handler="reports.summarise") == {"a"}
        assert await uids(phases=(Phase.PENDING,)) == set()


async def test_the_newest_task_of_a_name_is_meant(engine: AsyncEngine) -> None:
    await _apply(
        engine,
        snapshot(EventKind.QUEUED, 1, uid="old", name="n", created="2026-09-20T12:00:00Z"),
        snapshot(EventKind.QUEUED, 2, uid="new", name="n", created="2026-09-21T12:00:00Z"),
    )
    async with transaction(engine) as connection:
        row = await repository.get_task(connection, "team-a", "n")
    assert row is not None
    assert row.uid == "new"


async def test_a_lost_database_is_unavailable_and_the_same_engine_works_when_it_is_back(
    postgres: Stack, engine: AsyncEngine
) -> None:
    await _apply(engine, *story())
    postgres.stop("postgres")
    try:
        with pytest.raises(Unavailable) as caught:
            await _apply(engine, *story())
        assert "INSERT" not in str(caught.value)
    finally:
        postgres.start("postgres")
    assert await _apply(engine, *story()) == len(story())


async def test_a_wrong_password_is_unavailable_and_not_told(database: DatabaseSettings) -> None:
    url = database.url.get_secret_value().replace("taskflow:", "taskflow:wrong", 1)
    engine = create_engine(DatabaseSettings(url=SecretStr(url)), application_name="test")
    with pytest.raises(TaskflowError) as caught:
        await _apply(engine, *story())
    assert isinstance(caught.value, Unavailable)
    assert "wrong" not in str(caught.value)
