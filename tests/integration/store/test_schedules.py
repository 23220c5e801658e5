from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.domain.naming import LABEL_SCHEDULE
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import TaskStatus
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import repository, schedules
from taskflow_core.store.engine import transaction
from taskflow_core.store.schedules import ListedRun, RunKey, RunOutcome, RunRow, ScheduleRow
from taskflow_operator.history.database import Database
from tests.unit.taskflow_operator.builders import make_task

pytestmark = pytest.mark.integration
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
CREATED, SKIPPED, MISSED = RunOutcome.CREATED, RunOutcome.SKIPPED, RunOutcome.MISSED


def minute(number: int) -> datetime:
    return NOON + timedelta(minutes=number)


def run(number: int, outcome: RunOutcome = CREATED, **changes: object) -> RunRow:
    made = outcome is CREATED
    row = RunRow(
        schedule_uid="s",
        namespace="team",
        schedule="nightly",
        tick=minute(number),
        outcome=outcome,
        reason="" if made else "Forbid",
        task_uid=f"u{number}" if made else None,
        task_name=f"nightly.{number}" if made else None,
        decided_at=minute(number),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def schedule(uid: str = "s", cursor: datetime | None = None, generation: int = 1, every: int = 60) -> ScheduleRow:
    spec = {"every": {"seconds": every}}
    return ScheduleRow(
        uid=uid, namespace="team", name="nightly", generation=generation, spec=spec, cursor=cursor, created_at=NOON
    )


async def record(engine: AsyncEngine, *runs: RunRow) -> None:
    async with transaction(engine) as connection:
        await schedules.record_runs(connection, runs)


async def store(engine: AsyncEngine, *rows: ScheduleRow) -> None:
    async with transaction(engine) as connection:
        await schedules.upsert_schedules(connection, rows)


async def prune(engine: AsyncEngine, *uids: str, kept: int) -> int:
    async with transaction(engine) as connection:
        return await schedules.prune_runs(connection, uids, kept=kept)


async def ran(engine: AsyncEngine, *names: str, namespace: str = "team") -> dict[str, str]:
    async with transaction(engine) as connection:
        return await schedules.ran(connection, namespace, names)


async def listed(engine: AsyncEngine, *, name: str = "nightly", **filters: object) -> Sequence[ListedRun]:
    async with transaction(engine) as connection:
        return await schedules.list_runs(connection, "team", name, **filters)  # type: ignore[arg-type]


async def rows(engine: AsyncEngine, **filters: object) -> list[RunRow]:
    return [found.run for found in await listed(engine, **filters)]  # type: ignore[arg-type]


async def stored(engine: AsyncEngine, uid: str = "s") -> tuple[object, ...]:
    async with engine.connect() as connection:
        query = text("SELECT generation, spec, cursor, deleted_at FROM schedules WHERE uid = :uid")
        return tuple((await connection.execute(query, {"uid": uid})).one())


async def test_a_tick_is_recorded_once_and_its_first_word_stays(engine: AsyncEngine) -> None:
    first = [run(1), run(2, SKIPPED), run(3, MISSED)]
    await record(engine, *first)
    await record(engine, *first)
    await record(engine, run(1, MISSED), run(2, MISSED, reason="Late"), run(1, task_uid="other"))
    assert await rows(engine) == first[::-1]


async def test_a_missed_tick_that_a_backfill_runs_became_a_task(engine: AsyncEngine) -> None:
    await record(engine, run(1, MISSED), run(2, SKIPPED))
    filled = run(1, backfill="january", decided_at=minute(99))
    await record(engine, filled)
    assert await rows(engine) == [run(2, SKIPPED), filled]
    assert await rows(engine, backfill="january") == [filled]


async def test_runs_asked_for_in_the_same_second_are_two(engine: AsyncEngine) -> None:
    long = "\0\ud800" * 100_000
    by_hand = [run(1, token="a"), run(1, token=long), run(1)]
    await record(engine, *by_hand)
    await record(engine, *by_hand)
    tokens = [row.token for row in await rows(engine)]
    assert len(set(tokens)) == 3
    assert sorted(map(len, tokens)) == [0, 16, 16]


async def test_pages_follow_each_other_without_gap_or_repeat(engine: AsyncEngine) -> None:
    await record(engine, *(run(number) for number in range(7)), run(3, token="x"))
    await record(engine, run(3, schedule_uid="former"), run(1, schedule="other", schedule_uid="o"))
    seen: list[RunRow] = []
    after: RunKey | None = None
    while page := await listed(engine, after=after, limit=2):
        seen += [found.run for found in page]
        after = page[-1].key
    assert len(seen) == 9
    assert seen == sorted(seen, key=lambda row: (row.tick, row.schedule_uid, row.token), reverse=True)
    assert await listed(engine, name="nobody") == []


async def test_runs_are_filtered_by_outcome(engine: AsyncEngine) -> None:
    await record(engine, run(1), run(2, SKIPPED), run(3, MISSED))
    assert await rows(engine, outcomes=[SKIPPED, MISSED]) == [run(3, MISSED), run(2, SKIPPED)]


async def test_a_run_is_listed_with_the_phase_of_its_task(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await repository.upsert_tasks(connection, [make_task("u1", status=TaskStatus(phase=Phase.FAILED))])
    await record(engine, run(1), run(2))
    assert [found.phase for found in await listed(engine)] == [None, "Failed"]


async def test_a_schedule_never_goes_back(engine: AsyncEngine) -> None:
    await store(engine, schedule(cursor=minute(5), generation=2, every=90))
    await store(engine, schedule(cursor=minute(3), generation=1, every=60))
    await store(engine, schedule(cursor=None, generation=2, every=90))
    assert await stored(engine) == (2, {"every": {"seconds": 90}}, minute(5), None)
    await store(engine, schedule(cursor=minute(6), generation=3, every=30))
    assert await stored(engine) == (3, {"every": {"seconds": 30}}, minute(6), None)


async def test_a_deleted_schedule_keeps_its_runs_and_its_time_of_deletion(engine: AsyncEngine) -> None:
    await store(engine, schedule())
    await record(engine, run(1))
    for at in (minute(1), minute(2)):
        async with transaction(engine) as connection:
            await schedules.schedule_deleted(connection, "s", at)
    await store(engine, schedule(generation=2))
    assert (await stored(engine))[3] == minute(1)
    assert await rows(engine) == [run(1)]
    async with transaction(engine) as connection:
        assert await schedules.known(connection, "team", "nightly")
        assert not await schedules.known(connection, "other", "nightly")


async def test_the_oldest_beyond_what_is_kept_go_by_kind(engine: AsyncEngine) -> None:
    await store(engine, schedule(cursor=minute(100)), schedule("other", cursor=minute(100)))
    made = [run(number, CREATED if number % 2 else SKIPPED) for number in range(10)]
    await record(engine, *made, *(run(number, schedule_uid="other", task_uid=f"o{number}") for number in range(5)))
    assert await prune(engine, "s", kept=2) == 6
    assert [row.tick for row in await rows(engine) if row.schedule_uid == "s"] == [minute(n) for n in (9, 8, 7, 6)]
    assert len([row for row in await rows(engine) if row.schedule_uid == "other"]) == 5
    assert await prune(engine, "s", kept=2) == 0


async def test_nothing_goes_that_the_cursor_has_not_passed(engine: AsyncEngine) -> None:
    await record(engine, *(run(number) for number in range(6)))
    assert await prune(engine, "s", kept=1) == 0  # no schedule is stored
    await store(engine, schedule(cursor=None))
    assert await prune(engine, "s", kept=1) == 0
    await store(engine, schedule(cursor=minute(2)))
    assert await prune(engine, "s", kept=1) == 3
    assert [row.tick for row in await rows(engine)] == [minute(n) for n in (5, 4, 3)]


async def test_the_run_of_an_open_task_stays(engine: AsyncEngine) -> None:
    running, ended = TaskStatus(phase=Phase.RUNNING), TaskStatus(phase=Phase.SUCCEEDED, completion_time=NOON)
    async with transaction(engine) as connection:
        await repository.upsert_tasks(connection, [make_task("u1", status=running), make_task("u2", status=ended)])
    await store(engine, schedule(cursor=minute(9)))
    await record(engine, *(run(number) for number in range(4)))
    assert await prune(engine, "s", kept=1) == 2
    assert [row.task_uid for row in await rows(engine)] == ["u3", "u1"]


async def test_a_task_that_was_there_is_found_by_its_name(engine: AsyncEngine) -> None:
    """From the mirror of Tasks or from the runs, whichever was written; not from another namespace."""
    mirrored = {"m": ("nightly.0", "nightly"), "x": ("nightly.1", "nightly"), "stranger": ("nightly.4", "weekly")}
    async with transaction(engine) as connection:
        await repository.upsert_tasks(
            connection,
            [
                make_task(uid).model_copy(update={"name": name, "labels": {LABEL_SCHEDULE: schedule}})
                for uid, (name, schedule) in mirrored.items()
            ],
        )
    await record(engine, run(1), run(2), run(3, SKIPPED))
    asked = ("nightly.0", "nightly.1", "nightly.2", "nightly.3", "nightly.4", "never")
    assert await ran(engine, *asked) == {"nightly.0": "m", "nightly.1": "x", "nightly.2": "u2"}
    assert await ran(engine, *asked, namespace="other") == {}
    assert await ran(engine) == {}


async def test_the_operator_prunes_while_it_stores(engine: AsyncEngine, migrated: DatabaseSettings) -> None:
    history = Database(migrated, CacheVersions(None))
    try:
        await history.store_schedules([schedule(cursor=minute(10**6))])
        for start in range(0, 3_000, 100):
            await history.record_runs([run(number) for number in range(start, start + 100)])
    finally:
        await history.close()
    left = await rows(engine, limit=3_000)
    assert 1_000 <= len(left) < 1_500
    assert left[0].tick == minute(2_999)


async def test_what_postgres_cannot_hold_is_replaced(engine: AsyncEngine) -> None:
    await record(engine, run(1, SKIPPED, message="a\0\ud800"))
    assert (await rows(engine))[0].message == "a\ufffd\ufffd"
    await store(engine, replace(schedule(), spec={"a\0": float("nan")}))
    assert (await stored(engine))[1] == {"a\ufffd": "NaN"}


async def test_a_page_is_read_by_its_index(engine: AsyncEngine) -> None:
    await store(engine, schedule(cursor=minute(10**6)))
    for start in range(0, 20_000, 5_000):
        await record(engine, *(run(number) for number in range(start, start + 5_000)))
    async with engine.connect() as connection:
        await connection.execute(text("ANALYZE schedule_runs"))
        plan = (
            await connection.execute(
                text(
                    "EXPLAIN SELECT * FROM schedule_runs WHERE namespace = 'team' AND schedule = 'nightly' "
                    "AND (tick, schedule_uid, token) < (now() + interval '10 years', 's', '') "
                    "ORDER BY tick DESC, schedule_uid DESC, token DESC LIMIT 50"
                )
            )
        ).scalars()
        lines = "\n".join(plan)
    assert "ix_schedule_runs_page" in lines
    assert "Sort" not in lines
    # And pruning keeps what is to be kept, also of many.
    assert await prune(engine, "s", kept=1000) == 19_000
