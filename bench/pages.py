"""`python -m bench.pages`: what a page of the history costs among few and among many Tasks; about 2 minutes. N=100000 Tasks.

Starts a PostgreSQL of its own. The same pages are read, by the code that the API uses, from histories of 1,000 and of N Tasks.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.__main__ import say
from bench.machine import load, percentile
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.selectors import parse
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import engine as engines
from taskflow_core.store import repository
from taskflow_core.store.engine import transaction
from taskflow_core.store.migrate import migrate
from taskflow_core.store.repository import Filter
from taskflow_local.stack import Stack

FEW, MANY = 1000, int(os.environ.get("N", "100000"))
REPEATS, LIMIT = 200, 50
BOUND = 1.2
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FILL = text("""
    INSERT INTO tasks (uid, namespace, name, handler, queue, priority, spec, phase, reason, message, attempt, seq, created_at,
        started_at, outputs, labels)
    SELECT md5(n::text), 'team-a', 'task-' || n, 'handler-' || n % 7, 'queue-' || n % 5, 0,
        '{"handler": "reports.summarise", "kwargs": {"n": 1}, "retryPolicy": {"maxAttempts": 3}}',
        (ARRAY['Succeeded', 'Succeeded', 'Failed', 'Running'])[n % 4 + 1], '', '', 1, 1, :first + n * interval '1 second',
        :first + n * interval '1 second', '[]', jsonb_build_object('team', (n % 3)::text, 'run', (n / 100)::text)
    FROM generate_series(CAST(:start AS integer), CAST(:count AS integer)) AS n
""")


def pages(count: int) -> Mapping[str, Filter]:
    """By name, pages somewhere in a history of that many."""
    middle = FIRST + timedelta(seconds=count / 2)
    return {
        "all": Filter(),
        "phase": Filter(phases=(Phase.FAILED,)),
        "queue": Filter(queue="queue-2"),
        "handler": Filter(handler="handler-3"),
        "created before": Filter(created_before=middle),
        "phase, created before": Filter(phases=(Phase.FAILED,), created_before=middle),
        "phase, queue": Filter(phases=(Phase.FAILED,), queue="queue-2"),
        "frequent label": Filter(labels=parse("team=1")),
        "rare label": Filter(labels=parse(f"run={count // 300}")),
    }


INDEXED = ("all", "phase", "queue", "handler", "created before", "phase, created before")


async def measure(engine: AsyncEngine, wanted: Mapping[str, Filter], count: int) -> dict[str, float]:
    """Median milliseconds of each page, the names in turn; half of the pages are the first, half come after a cursor."""
    found: dict[str, list[float]] = {name: [] for name in wanted}
    draw = random.Random(1)
    for number in range(REPEATS):
        share = draw.uniform(0.2, 1)
        for name, one in wanted.items():
            latest = one.created_before or FIRST + timedelta(seconds=count)
            place = (FIRST + (latest - FIRST) * share, "f") if number % 2 else None
            async with transaction(engine) as connection:
                began = time.perf_counter()
                await repository.list_tasks(connection, "team-a", one, after=place, limit=LIMIT)
                found[name].append((time.perf_counter() - began) * 1000)
    return {name: percentile(times, 0.5) for name, times in found.items()}


async def run(url: str) -> int:
    """Measure, print a table; the exit code says whether the promise held."""
    engine = engines.create_engine(
        DatabaseSettings(url=SecretStr(url)), application_name="bench", statement_timeout_seconds=600
    )
    results: list[dict[str, float]] = []
    filled = 0
    for count in (FEW, MANY):
        async with transaction(engine) as connection:
            await connection.execute(FILL, {"first": FIRST, "start": filled + 1, "count": count})
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM ANALYZE tasks"))
        filled = count
        await measure(engine, pages(count), count)
        results.append(await measure(engine, pages(count), count))
    await engine.dispose()
    few, many = results
    say(f"page of {LIMIT}, median of {REPEATS}, ms; load {load()}")
    say(f"{'filter':24}{FEW:>10}{MANY:>10}{'ratio':>8}")
    for name in few:
        say(f"{name:24}{few[name]:10.2f}{many[name]:10.2f}{many[name] / few[name]:8.2f}")
    worst = max(many[name] / few[name] for name in INDEXED)
    say(f"worst of those that an index has in order: {worst:.2f} x (promised: {BOUND})")
    return 0 if worst <= BOUND else 1


def main() -> int:
    """A PostgreSQL of its own, gone at the end."""
    # Not a private folder: PostgreSQL, which root cannot run, has to pass through.
    with tempfile.TemporaryDirectory(prefix="taskflow-bench-") as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "stack", components=("postgres",))
        try:
            stack.up(log=lambda _: None)
            url = stack.env()["TASKFLOW_DATABASE_URL"]
            migrate(create_engine(url, poolclass=NullPool))
            return asyncio.run(run(url))
        finally:
            stack.down(log=lambda _: None)


if __name__ == "__main__":
    sys.exit(main())
