"""Pages of a history of 60,000 Tasks: what they hold, and how PostgreSQL finds them."""

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.selectors import parse
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import engine as engines
from taskflow_core.store import repository
from taskflow_core.store.engine import transaction
from taskflow_core.store.repository import Filter
from tests.databases import Databases
from tests.unit.taskflow_core.store.builders import snapshot

pytestmark = pytest.mark.integration
COUNT = 60_000
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FILL = text("""
    INSERT INTO tasks (uid, namespace, name, handler, queue, priority, spec, phase, reason, message, attempt, seq,
        created_at,
        started_at, outputs, labels)
    SELECT to_char(n, 'FM000000'), CASE n % 4 WHEN 0 THEN 'team-b' ELSE 'team-a' END, 'task-' || n,
        'handler-' || n % 7, 'queue-' || n % 5, 0, '{}',
        (ARRAY['Succeeded', 'Failed', 'Running', 'Queued'])[n % 3 + 1], '', '', 1,
        1, :first + n * interval '1 second', CASE WHEN n % 2 = 0 THEN :first + n * interval '1 second' END, '[]',
        CASE WHEN n % 11 = 0 THEN NULL ELSE jsonb_build_object(
            'team', (n % 3)::text, 'only', CASE WHEN n % 20000 = 1 THEN 'x' ELSE 'y' END
        ) END
    FROM generate_series(1, :count) AS n
""")


@pytest.fixture(scope="module")
def history(databases: Databases) -> Iterator[DatabaseSettings]:
    """A database with all these Tasks, which the tests only read."""
    with databases.migrated() as made:
        with create_engine(made.url.get_secret_value(), poolclass=NullPool).begin() as connection:
            connection.execute(FILL, {"first": FIRST, "count": COUNT})
            connection.execute(text("ANALYZE tasks"))
        yield made


@pytest.fixture
async def filled(history: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    made = engines.create_engine(history, application_name="test")
    yield made
    await made.dispose()


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def explained(engine: AsyncEngine, wanted: Filter, after: tuple[datetime, str] | None) -> list[dict[str, Any]]:
    compiled = repository.page_query("team-a", wanted, after=after, limit=50).compile(engine.sync_engine)
    process = compiled._bind_processors
    values = {
        name: process[name](value) if name in process else value  # type: ignore[operator]
        for name, value in (compiled.construct_params()).items()
    }
    async with transaction(engine) as connection:
        found = await connection.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) " + str(compiled), values)
        return nodes(found.scalar_one()[0]["Plan"])


async def test_every_page_without_labels_is_read_from_an_index_in_its_order(filled: AsyncEngine) -> None:
    choices: dict[str, Any] = {
        "phases": (Phase.FAILED,),
        "queue": "queue-2",
        "handler": "handler-3",
        "created_after": FIRST + timedelta(seconds=1000),
        "created_before": FIRST + timedelta(seconds=25_000),
    }
    for size in range(len(choices) + 1):
        for names in itertools.combinations(choices, size):
            for after in (None, (FIRST + timedelta(seconds=20_000), "020000")):
                wanted = Filter(**{name: choices[name] for name in names})
                found = await explained(filled, wanted, after)
                kinds = {node["Node Type"] for node in found}
                # Of several, PostgreSQL may sort the few rows that have all of them.
                alone = len({"phases", "queue", "handler"} & set(names)) < 2
                assert "Seq Scan" not in kinds, (names, after)
                assert not alone or kinds == {"Limit", "Index Scan"}, (names, after, kinds)
                # Of a filter that is not in the index, as many rows as it takes to find a page.
                assert found[-1].get("Rows Removed by Filter", 0) < 6000, names


RARE = {
    "only=x": [40_001, 20_001, 1],
    "only=x,team=1": [1],
    "only in (x,z),team notin (1)": [40_001, 20_001],
    "only,only!=y": [40_001, 20_001, 1],
}


async def test_labels_are_found_without_a_sequential_scan(filled: AsyncEngine) -> None:
    for selector, expected in RARE.items():
        wanted = Filter(labels=parse(selector))
        async with transaction(filled) as connection:
            rows = await repository.list_tasks(connection, "team-a", wanted)
        assert [int(row.uid) for row in rows] == [number for number in expected if number % 4], selector
        kinds = {node["Node Type"] for node in await explained(filled, wanted, None)}
        assert "Seq Scan" not in kinds, selector
        # Rare ones by their own index.
        assert "!=" in selector or "Bitmap Index Scan" in kinds, (selector, kinds)
    for selector in ("team=1", "team!=1", "!team", "team", "team in (1,2)"):
        wanted = Filter(labels=parse(selector))
        assert "Seq Scan" not in {node["Node Type"] for node in await explained(filled, wanted, None)}, selector
        async with transaction(filled) as connection:
            rows = await repository.list_tasks(connection, "team-a", wanted)
        everything = [number for number in range(COUNT, COUNT - 2000, -1) if number % 4]
        matching = [
            number
            for number in everything
            if all(each.matches({} if number % 11 == 0 else {"team": str(number % 3)}) for each in wanted.labels)
        ]
        assert [int(row.uid) for row in rows] == matching[:50], selector


async def test_the_latest_starts_come_from_their_index(filled: AsyncEngine) -> None:
    since = FIRST + timedelta(seconds=COUNT - 3600)
    async with transaction(filled) as connection:
        found = await repository.latest_starts(connection, "team-a", "queue-2", since=since, limit=100)
        plan = (
            await connection.exec_driver_sql(
                "EXPLAIN (FORMAT JSON) SELECT started_at FROM tasks WHERE namespace = 'team-a' AND queue = 'queue-2'"
                f" AND started_at >= '{since.isoformat()}' ORDER BY started_at DESC LIMIT 100"
            )
        ).scalar_one()
    assert len(found) == 100
    assert found == sorted(found, reverse=True)
    assert {node["Node Type"] for node in nodes(plan[0]["Plan"])} == {"Limit", "Index Only Scan"}


async def test_an_operator_that_tells_no_labels_leaves_those_that_are_known(engine: AsyncEngine) -> None:
    uid = "0b0e7d8e-0000-4000-8000-000000000001"
    async with transaction(engine) as connection:
        told = snapshot(EventKind.PENDING, 1, uid=uid, phase="Pending", labels={"team": "x"})
        later = snapshot(EventKind.QUEUED, 2, uid=uid)
        assert await repository.apply_events(connection, [told]) == 1
        assert await repository.apply_events(connection, [later]) == 1
        (row,) = await repository.list_tasks(connection, "team-a", Filter(labels=parse("team=x")))
    assert (row.phase, row.labels) == ("Queued", {"team": "x"})
