"""What ran once, in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.run_once import PastRun, digest
from taskflow_core.domain.task import TaskSpec
from taskflow_core.store import repository, run_once
from taskflow_core.store.engine import transaction
from taskflow_core.store.tables import run_once as table
from taskflow_core.store.tables import tasks
from tests.unit.taskflow_core.store.builders import UID, snapshot
from tests.unit.taskflow_core.store.test_run_rows import BADLY, END, SPEC, WELL

pytestmark = pytest.mark.integration
DIGEST = digest(TaskSpec.model_validate(SPEC))
OUTPUT = {"name": "o", "key": "k", "sizeBytes": 1, "sha256": "0", "contentType": "t/t"}


async def ended(engine: AsyncEngine, number: int, **fields: Any) -> str:
    """The end of a Task of the same name and work; its uid."""
    uid = f"{UID[:-1]}{number}"
    told: dict[str, Any] = {"name": "report", "spec": SPEC, **fields}
    made = snapshot(EventKind.SETTLED, number, uid=uid, **told)
    async with transaction(engine) as connection:
        assert await repository.apply_events(connection, [made]) == 1
    return uid


async def found(engine: AsyncEngine, name: str = "report", of: str = DIGEST) -> PastRun | None:
    async with transaction(engine) as connection:
        return await run_once.find_run(connection, "team-a", name, of)


async def test_the_run_is_found_by_name_and_digest_with_result_and_outputs(engine: AsyncEngine) -> None:
    assert await found(engine) is None
    uid = await ended(engine, 1, **WELL, outputs=[OUTPUT])
    run = await found(engine)
    assert run is not None
    assert (run.uid, run.phase, run.result) == (uid, Phase.SUCCEEDED, {"rows": 3})
    assert run.finished_at == datetime.fromisoformat(END)
    assert [output.key for output in run.outputs] == ["k"]
    assert await found(engine, "other") is None
    assert await found(engine, of="v1:other") is None


async def test_a_failure_is_replaced_by_the_next_end_and_a_success_by_nothing(engine: AsyncEngine) -> None:
    first = await ended(engine, 1, **BADLY)
    second = await ended(engine, 2, **BADLY | {"completionTime": "2026-09-21T13:00:00Z"})
    # An older one that is told again.
    await ended(engine, 1, **BADLY)
    run = await found(engine)
    assert run is not None
    assert (run.uid, first) == (second, f"{UID[:-1]}1")
    third = await ended(engine, 3, **WELL)
    await ended(engine, 4, **BADLY | {"completionTime": "2026-09-23T12:00:00Z"})
    run = await found(engine)
    assert run is not None
    assert (run.uid, run.phase, run.result) == (third, Phase.SUCCEEDED, {"rows": 3})


async def test_the_end_and_the_run_are_stored_together_or_not_at_all(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text("ALTER TABLE run_once ADD CONSTRAINT refuses CHECK (name <> 'report')"))
    made = snapshot(EventKind.SETTLED, 1, name="report", spec=SPEC, **WELL)
    async with transaction(engine) as connection:
        # PostgreSQL blames a value, so the event is left out, and logged.
        assert await repository.apply_events(connection, [made]) == 0
    async with transaction(engine) as connection:
        assert (await connection.execute(select(tasks.c.uid))).all() == []
        await connection.execute(text("ALTER TABLE run_once DROP CONSTRAINT refuses"))
        assert await repository.apply_events(connection, [made]) == 1
    assert await found(engine) is not None


async def test_forgetting_takes_all_digests_of_the_name_and_no_other(engine: AsyncEngine) -> None:
    await ended(engine, 1, **WELL)
    await ended(engine, 2, **WELL, spec={**SPEC, "kwargs": {"n": 2}})
    await ended(engine, 3, **WELL, name="other")
    async with transaction(engine) as connection:
        assert await run_once.forget_runs(connection, "team-b", "report") == 0
        assert await run_once.forget_runs(connection, "team-a", "report") == 2
        assert await run_once.forget_runs(connection, "team-a", "report") == 0
    assert (await found(engine), (await found(engine, "other")) is not None) == (None, True)


async def test_what_is_asked_for_is_kept(engine: AsyncEngine) -> None:
    await ended(engine, 1, **WELL)
    await ended(engine, 2, **WELL, name="other")
    async with transaction(engine) as connection:
        await connection.execute(table.update().values(used_at=datetime.now(UTC) - timedelta(days=9)))
    assert await found(engine) is not None
    since = datetime.now(UTC) - timedelta(days=8)
    async with transaction(engine) as connection:
        assert await run_once.prune_runs(connection, since, 10) == 1
        assert await run_once.prune_runs(connection, since, 10) == 0
    assert (await found(engine) is not None, await found(engine, "other")) == (True, None)
