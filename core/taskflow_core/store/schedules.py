"""Schedules and their runs: which tick became which Task, and why others did not.

Every function takes a connection in a transaction (see `engine.transaction`), and raises `Unavailable` if the database
does not answer. Every write may be repeated.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Executable, case, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from taskflow_core.domain.naming import LABEL_SCHEDULE
from taskflow_core.domain.task import MAX_MESSAGE_CHARS
from taskflow_core.store.engine import database_errors
from taskflow_core.store.fitting import fit_json, fit_text
from taskflow_core.store.tables import schedule_runs, schedules, tasks

RUNS_KEPT = 1000
"""Newest runs of a schedule that are kept, and as many of its ticks that were skipped or missed. More than its history
limits allow, so that a Task that still exists has not lost its run."""
_PRUNED_AFTER = 50
"""Runs, on average, until a schedule is pruned again. It costs more than to store one."""


class RunOutcome(StrEnum):
    """What became of a tick."""

    CREATED = "Created"
    """It became a Task."""
    SKIPPED = "Skipped"
    """The concurrency policy left it out."""
    MISSED = "Missed"
    """It was too late for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A TaskSchedule; columns of table `schedules`."""

    uid: str
    namespace: str
    name: str
    generation: int
    spec: Mapping[str, Any]
    """As on the wire (camelCase)."""
    cursor: datetime | None
    """Every tick up to it is decided."""
    created_at: datetime
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A decided tick; columns of table `schedule_runs`."""

    schedule_uid: str
    namespace: str
    schedule: str
    """Name of the schedule."""
    tick: datetime
    """For a run that was asked for by hand: when it was asked for."""
    token: str = ""
    """What tells runs apart that were asked for by hand; empty for a tick of the schedule or of a backfill. Stored as a
    digest."""
    backfill: str = ""
    """Name of the backfill that it belongs to."""
    outcome: RunOutcome
    reason: str = ""
    message: str = ""
    task_uid: str | None = None
    task_name: str | None = None
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """A run with what became of its Task, as far as the history knows it."""

    run: RunRow
    phase: str | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def key(self) -> RunKey:
        """Its place in the order of a page."""
        return self.run.tick, self.run.schedule_uid, self.run.token


RunKey = tuple[datetime, str, str]
"""Tick, uid of the schedule, token."""
_SCHEDULE_FIELDS = tuple(ScheduleRow.__slots__)
_RUN_FIELDS = tuple(RunRow.__slots__)


def _upsert_schedule() -> Executable:
    statement = insert(schedules)
    new = statement.excluded
    newer = new.generation >= schedules.c.generation
    return statement.on_conflict_do_update(
        index_elements=[schedules.c.uid],
        set_={
            "generation": func.greatest(new.generation, schedules.c.generation),
            "spec": case((newer, new.spec), else_=schedules.c.spec),
            # greatest() ignores NULL.
            "cursor": func.greatest(new.cursor, schedules.c.cursor),
            "deleted_at": func.coalesce(schedules.c.deleted_at, new.deleted_at),
        },
    )


def _record_run() -> Executable:
    """The first word about a tick stays, but that it became a Task after all, as a backfill does with a missed one."""
    statement = insert(schedule_runs)
    new = statement.excluded
    key = [schedule_runs.c.schedule_uid, schedule_runs.c.tick, schedule_runs.c.token]
    kept = {column.name for column in key} | {"namespace", "schedule"}
    return statement.on_conflict_do_update(
        index_elements=key,
        set_={name: new[name] for name in _RUN_FIELDS if name not in kept},
        where=(schedule_runs.c.outcome != RunOutcome.CREATED.value) & (new.outcome == RunOutcome.CREATED.value),
    )


_UPSERT_SCHEDULE = _upsert_schedule()
_RECORD_RUN = _record_run()
# Only what the cursor has passed, since a tick that it has not may be decided again, and only what has no open Task.
# Nothing compares with NULL: a schedule without cursor or with few runs keeps all.
_PRUNE = text("""
    DELETE FROM schedule_runs AS old USING (
        SELECT schedules.uid, schedules.cursor, kind.created, (
            SELECT tick FROM schedule_runs AS run
            WHERE run.schedule_uid = schedules.uid AND (run.outcome = 'Created') = kind.created
            ORDER BY tick DESC OFFSET :kept LIMIT 1) AS newest_surplus
        FROM schedules CROSS JOIN (VALUES (TRUE), (FALSE)) AS kind (created)
        WHERE schedules.uid = ANY(:uids)
    ) AS bound
    WHERE old.schedule_uid = bound.uid AND (old.outcome = 'Created') = bound.created
        AND old.tick <= bound.newest_surplus AND old.tick <= bound.cursor
        AND NOT EXISTS (SELECT FROM tasks WHERE tasks.uid = old.task_uid AND tasks.finished_at IS NULL
            AND tasks.deleted_at IS NULL)
""")


async def upsert_schedules(connection: AsyncConnection, rows: Sequence[ScheduleRow]) -> None:
    """Store schedules as they stand. An older specification or cursor never replaces a newer one."""
    if not rows:
        return
    values = [
        {name: getattr(row, name) for name in _SCHEDULE_FIELDS} | {"spec": fit_json(dict(row.spec))}
        # Two writers lock in the same order.
        for row in sorted(rows, key=lambda row: row.uid)
    ]
    with database_errors():
        await connection.execute(_UPSERT_SCHEDULE, values)


async def schedule_deleted(connection: AsyncConnection, uid: str, at: datetime) -> None:
    """The resource is gone; its runs stay."""
    statement = update(schedules).where(schedules.c.uid == uid, schedules.c.deleted_at.is_(None))
    with database_errors():
        await connection.execute(statement.values(deleted_at=at))


async def record_runs(connection: AsyncConnection, runs: Sequence[RunRow]) -> None:
    """Store what became of ticks, once a tick and token: later words about it change nothing, except that a tick that
    was skipped or missed became a Task.
    """
    if not runs:
        return
    values = [
        {name: getattr(run, name) for name in _RUN_FIELDS}
        | {
            "outcome": run.outcome.value,
            "token": _digest(run.token),
            "message": fit_text(run.message, MAX_MESSAGE_CHARS),
        }
        for run in sorted(runs, key=lambda run: (run.schedule_uid, run.tick, run.token))
    ]
    with database_errors():
        await connection.execute(_RECORD_RUN, values)


def _digest(token: str) -> str:
    """Callers choose tokens: of any length, and with any characters."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()[:16] if token else ""


def due_for_pruning(runs: Iterable[RunRow]) -> set[str]:
    """Uids of the schedules that are to be pruned once these runs are stored: after about one run in fifty, whichever
    process stores it.
    """
    return {
        run.schedule_uid
        for run in runs
        if zlib.crc32(f"{run.schedule_uid} {run.tick.timestamp()}".encode()) % _PRUNED_AFTER == 0
    }


async def prune_runs(connection: AsyncConnection, uids: Collection[str], *, kept: int = RUNS_KEPT) -> int:
    """Delete the oldest runs of these schedules beyond the newest `kept`, and as many of the skipped and missed ticks;
    how many there were. Nothing of a tick that the stored cursor has not passed, or whose Task is open.
    """
    with database_errors():
        return (await connection.execute(_PRUNE, {"uids": sorted(uids), "kept": kept})).rowcount


async def ran(connection: AsyncConnection, namespace: str, names: Collection[str]) -> dict[str, str]:
    """Uids of the runs of these names that exist or existed, by name; of several of one name, the newest.

    That is what decides whether a tick may run when its Task is not there: one that has been there does not run again.
    """
    recorded = select(schedule_runs.c.task_name, schedule_runs.c.task_uid).where(
        schedule_runs.c.namespace == namespace,
        schedule_runs.c.task_name.in_(sorted(names)),
        schedule_runs.c.task_uid.is_not(None),
    )
    mirrored = (
        select(tasks.c.name, tasks.c.uid)
        .where(
            tasks.c.namespace == namespace,
            tasks.c.name.in_(sorted(names)),
            # Not any Task that had such a name: a run is called SCHEDULE.PART, and says of which schedule it is.
            tasks.c.labels[LABEL_SCHEDULE].astext == func.split_part(tasks.c.name, ".", 1),
        )
        .order_by(tasks.c.created_at, tasks.c.uid)
    )
    with database_errors():
        found = {str(name): str(uid) for name, uid in await connection.execute(recorded)}
        return found | {str(name): str(uid) for name, uid in await connection.execute(mirrored)}


async def list_runs(
    connection: AsyncConnection,
    namespace: str,
    schedule: str,
    *,
    outcomes: Collection[RunOutcome] = (),
    backfill: str | None = None,
    after: RunKey | None = None,
    limit: int = 50,
) -> list[ListedRun]:
    """Runs of the schedule of that name and of those that had the name before it, newest tick first.

    Args:
        connection: In a transaction.
        namespace: Of the schedule.
        schedule: Its name.
        outcomes: Only these; all, if empty.
        backfill: Only those of the backfill of this name.
        after: `key` of the last run of the page before.
        limit: Most rows of the page.
    """
    columns = [schedule_runs.c[name] for name in _RUN_FIELDS]
    query = (
        select(*columns, tasks.c.phase, tasks.c.started_at, tasks.c.finished_at)
        .outerjoin(tasks, tasks.c.uid == schedule_runs.c.task_uid)
        .where(schedule_runs.c.namespace == namespace, schedule_runs.c.schedule == schedule)
    )
    if outcomes:
        query = query.where(schedule_runs.c.outcome.in_([outcome.value for outcome in outcomes]))
    if backfill is not None:
        query = query.where(schedule_runs.c.backfill == backfill)
    order = (schedule_runs.c.tick, schedule_runs.c.schedule_uid, schedule_runs.c.token)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after))
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    with database_errors():
        return [_listed(dict(row)) for row in (await connection.execute(query)).mappings()]


def _listed(row: dict[str, Any]) -> ListedRun:
    run = RunRow(**{name: row[name] for name in _RUN_FIELDS} | {"outcome": RunOutcome(row["outcome"])})
    return ListedRun(run=run, phase=row["phase"], started_at=row["started_at"], finished_at=row["finished_at"])


async def known(connection: AsyncConnection, namespace: str, name: str) -> bool:
    """Whether there is or was a schedule of that name."""
    stored = select(schedules.c.uid).where(schedules.c.namespace == namespace, schedules.c.name == name).limit(1)
    with database_errors():
        return (await connection.execute(stored)).first() is not None
