"""`python -m bench.pages`: latency of a page of a short and of a long history; about 2 minutes. N=100000 Tasks.

Starts two PostgreSQL servers. The API's code reads the same pages in turn from histories of 1,000 and of N Tasks.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.machine import load, percentile
from bench.own_stack import own_stack, say
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.selectors import parse
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import engine as engines
from taskflow_core.store import repository
from taskflow_core.store.engine import transaction
from taskflow_core.store.migrate import migrate
from taskflow_core.store.repository import Filter

FEW, MANY = 1000, int(os.environ.get("N", "100000"))
REPEATS, WARMING, LIMIT = 200, 20, 50
BOUND = 1.2
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FILL = text("""
    INSERT INTO tasks (uid, namespace, name, handler, queue, priority, spec, phase, reason, message, attempt, seq,
        created_at, started_at, outputs, labels)
    SELECT md5(n::text), 'team-a', 'task-' || n, 'handler-' || n % 7, 'queue-' || n % 5, 0,
        '{"handler": "reports.summarise", "kwargs": {"n": 1}, "retryPolicy": {"maxAttempts": 3}}',
        (ARRAY['Succeeded', 'Succeeded', 'Failed', 'Running'])[n % 4 + 1], '', '', 1, 1,
        :first + n * interval '1 second', :first + n * interval '1 second', '[]',
        jsonb_build_object('team', (n % 3)::text, 'run', (n / 100)::text)
    FROM generate_series(CAST(:former AS integer) + 1, CAST(:count AS integer)) AS n
""")


def pages(count: int) -> Mapping[str, Filter]:
    """Pages in a history of this size, by name."""
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


async def filled(url: str, count: int, former: int = 0) -> AsyncEngine:
    """Fill a history up to `count` Tasks; it already has `former`."""
    engine = engines.create_engine(
        DatabaseSettings(url=SecretStr(url)), application_name="bench", statement_timeout_seconds=600
    )
    async with transaction(engine) as connection:
        await connection.execute(FILL, {"first": FIRST, "former": former, "count": count})
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE tasks"))
    return engine


async def page(engine: AsyncEngine, wanted: Filter, count: int, share: float | None) -> float:
    """Milliseconds of the first page, or of a page after a cursor in the list."""
    latest = wanted.created_before or FIRST + timedelta(seconds=count)
    place = None if share is None else (FIRST + (latest - FIRST) * share, "f")
    async with transaction(engine) as connection:
        began = time.perf_counter()
        await repository.list_tasks(connection, "team-a", wanted, after=place, limit=LIMIT)
        return (time.perf_counter() - began) * 1000


async def run(urls: tuple[str, str]) -> int:
    """Measure in turn and print a table; the exit code says whether the limit was kept."""
    counts = FEW, MANY
    histories = [await filled(url, count) for url, count in zip(urls, counts, strict=True)]
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pages(FEW)}
    draw = random.Random(1)
    for number in range(-WARMING, REPEATS):
        share = draw.uniform(0.2, 1) if number % 2 else None
        for name in times:
            # In turn, so that other load of the machine affects both.
            for which in (0, 1):
                took = await page(histories[which], pages(counts[which])[name], counts[which], share)
                if number >= 0:
                    times[name][which].append(took)
    for engine in histories:
        await engine.dispose()
    say(f"page of {LIMIT}, median of {REPEATS}, ms; load {load()}")
    say(f"{'filter':24}{FEW:>10}{MANY:>10}{'ratio':>8}")
    ratios = {}
    for name, both in times.items():
        few, many = (percentile(each, 0.5) for each in both)
        ratios[name] = many / few
        say(f"{name:24}{few:10.2f}{many:10.2f}{ratios[name]:8.2f}")
    worst = max(ratios[name] for name in INDEXED)
    say(f"worst of the pages that an index has in order: {worst:.2f} x (limit: {BOUND})")
    return 0 if worst <= BOUND else 1


def main() -> int:
    """Start, measure, stop; return 1 if pages of many rows are too slow."""
    with own_stack(("postgres",)) as few, own_stack(("postgres",)) as many:
        urls = []
        for stack in (few, many):
            urls.append(stack.env()["TASKFLOW_DATABASE_URL"])
            migrate(create_engine(urls[-1], poolclass=NullPool))
        return asyncio.run(run((urls[0], urls[1])))


if __name__ == "__main__":
    sys.exit(main())
