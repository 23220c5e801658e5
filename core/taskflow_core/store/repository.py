"""What the history is told and asked. Every function takes a connection in a transaction (see `engine.transaction`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, String, column, exc, func, not_, or_, select, tuple_
from sqlalchemy import table as sql_table
from sqlalchemy.ext.asyncio import AsyncConnection

from taskflow_core.domain.events import Event
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.selectors import Operator, Requirement
from taskflow_core.domain.task import Task
from taskflow_core.store.engine import database_errors, sqlstate
from taskflow_core.store.folding import Batch, fold, mirror, stream_position
from taskflow_core.store.rows import AttemptRow, TaskRow, TimelineRow
from taskflow_core.store.statements import ADD_LINE, KEEP_RUN, MARK_RUNNING, MERGE_ATTEMPT, UPSERT_TASK
from taskflow_core.store.tables import attempts, tasks, timeline
from taskflow_core.telemetry.logs import get_logger

MAX_TIMELINE_ROWS = 1000
# Classes of SQLSTATE that blame a value: data exception, integrity violation, program limit exceeded.
_VALUE_CLASSES = frozenset({"22", "23", "54"})
_TASK_COLUMNS = [tasks.c[name] for name in TaskRow.__slots__]

_log = get_logger(__name__)
Item = TypeVar("Item", Event, Task)


async def apply_events(connection: AsyncConnection, events: Sequence[Event]) -> int:
    """Fold up to about 1,000 events into the history; how many of them it took.

    Safe to repeat and in any order. An event that can never be stored (unreadable payload, a value that PostgreSQL
    refuses) is logged with its id and left out, so that it does not block those after it.

    Raises:
        Unavailable: nothing was stored; come again with the same events.
    """
    return await _apply(connection, events, fold)


async def upsert_tasks(connection: AsyncConnection, current: Sequence[Task]) -> int:
    """Mirror Tasks as the API server has them, after events were lost; how many of them it took. Safe to repeat.

    Raises:
        Unavailable: nothing was stored; come again.
    """
    return await _apply(connection, current, mirror)


async def namespaces_of(connection: AsyncConnection, uids: Collection[str]) -> set[str]:
    """Namespaces of these Tasks, as far as they are known. Raises `Unavailable`."""
    with database_errors():
        found = await connection.execute(select(tasks.c.namespace).where(tasks.c.uid.in_(sorted(uids))).distinct())
        return set(found.scalars())


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which Tasks of a namespace; what is None or empty leaves nothing out."""

    phases: tuple[Phase, ...] = ()
    queue: str | None = None
    handler: str | None = None
    labels: tuple[Requirement, ...] = ()
    """All of these hold; a Task whose labels are not known has none."""
    created_after: datetime | None = None
    """That or later."""
    created_before: datetime | None = None
    """Earlier than that."""


async def list_tasks(
    connection: AsyncConnection,
    namespace: str,
    wanted: Filter = Filter(),
    *,
    after: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[TaskRow]:
    """Tasks of a namespace, newest first. The next page comes `after` the last row's (created_at, uid)."""
    return await _task_rows(connection, page_query(namespace, wanted, after=after, limit=limit))


def page_query(
    namespace: str, wanted: Filter, *, after: tuple[datetime, str] | None, limit: int
) -> Select[tuple[object, ...]]:
    """The query of `list_tasks`.

    Without labels it reads an index in its order: by one phase, queue or handler, if one is given; the others are then
    filters. With labels PostgreSQL decides whether it walks that index or sorts those that have them.
    """
    query = select(*_TASK_COLUMNS).where(tasks.c.namespace == namespace)
    if len(wanted.phases) == 1:
        query = query.where(tasks.c.phase == wanted.phases[0].value)
    elif wanted.phases:
        query = query.where(tasks.c.phase.in_([phase.value for phase in wanted.phases]))
    if wanted.queue is not None:
        query = query.where(tasks.c.queue == wanted.queue)
    if wanted.handler is not None:
        query = query.where(tasks.c.handler == wanted.handler)
    if wanted.created_after is not None:
        query = query.where(tasks.c.created_at >= wanted.created_after)
    before = wanted.created_before
    for requirement in wanted.labels:
        query = query.where(_fulfils(requirement))
    # One upper bound, the lower of the two: with both, a scan begins at one of them and reads its way to the other.
    if after is not None and (before is None or after[0] < before):
        query = query.where(tuple_(tasks.c.created_at, tasks.c.uid) < tuple_(*after))
    elif before is not None:
        query = query.where(tasks.c.created_at < before)
    return query.order_by(tasks.c.created_at.desc(), tasks.c.uid.desc()).limit(limit)


def _fulfils(requirement: Requirement) -> ColumnElement[bool]:
    key, column = requirement.key, tasks.c.labels
    if requirement.operator in (Operator.EXISTS, Operator.ABSENT):
        holds: ColumnElement[bool] = column.has_key(key)
    else:
        # Not `labels ->> key = value`: the index knows containment.
        holds = or_(*(column.contains({key: value}) for value in requirement.values))
    negative = requirement.operator in (Operator.NOT_IN, Operator.ABSENT)
    return or_(column.is_(None), not_(holds)) if negative else holds


async def get_task(connection: AsyncConnection, namespace: str, name: str) -> TaskRow | None:
    """The newest Task that had this name."""
    query = select(*_TASK_COLUMNS).where(tasks.c.namespace == namespace, tasks.c.name == name)
    rows = await _task_rows(connection, query.order_by(tasks.c.created_at.desc(), tasks.c.uid.desc()).limit(1))
    return rows[0] if rows else None


async def latest_starts(
    connection: AsyncConnection, namespace: str, queue: str, *, since: datetime, limit: int
) -> list[datetime]:
    """When the Tasks of a queue started that started last, newest first; of each Task its first start.

    Raises:
        Unavailable: the database does not answer.
    """
    query = select(tasks.c.started_at).where(
        tasks.c.namespace == namespace, tasks.c.queue == queue, tasks.c.started_at >= since
    )
    with database_errors():
        found = await connection.execute(query.order_by(tasks.c.started_at.desc()).limit(limit))
        return list(found.scalars())


async def name_of(connection: AsyncConnection, uid: str) -> tuple[str, str] | None:
    """Namespace and name of a Task; None if there is no row of it.

    Raises:
        Unavailable: the database does not answer.
    """
    with database_errors():
        row = (await connection.execute(select(tasks.c.namespace, tasks.c.name).where(tasks.c.uid == uid))).first()
    return (str(row.namespace), str(row.name)) if row is not None else None


async def finished(connection: AsyncConnection, uids: Sequence[str]) -> set[str]:
    """Those of the uids whose terminal phase is stored.

    Raises:
        Unavailable: the database does not answer.
    """
    terminal = [phase.value for phase in Phase if phase.terminal]
    statement = select(tasks.c.uid).where(tasks.c.uid.in_(uids), tasks.c.phase.in_(terminal))
    with database_errors():
        return {str(uid) for uid in (await connection.execute(statement)).scalars()}


async def get_attempts(connection: AsyncConnection, uid: str) -> list[AttemptRow]:
    """All attempts of a Task, first to last."""
    query = select(attempts).where(attempts.c.uid == uid).order_by(attempts.c.attempt)
    with database_errors():
        return [AttemptRow(**row) for row in (await connection.execute(query)).mappings()]


async def get_timeline(connection: AsyncConnection, uid: str) -> list[TimelineRow]:
    """The latest 1,000 events of a Task, oldest first."""
    query = select(timeline).where(timeline.c.uid == uid).order_by(timeline.c.at.desc()).limit(MAX_TIMELINE_ROWS)
    with database_errors():
        rows = [TimelineRow(**row) for row in (await connection.execute(query)).mappings()]
    return sorted(rows, key=lambda row: stream_position(row.event_id))


async def revision(connection: AsyncConnection) -> str | None:
    """Revision of the schema; None if there is none."""
    if await connection.scalar(select(func.to_regclass("alembic_version").cast(String))) is None:
        return None
    return await connection.scalar(select(column("version_num", String)).select_from(sql_table("alembic_version")))


async def check(connection: AsyncConnection) -> None:
    """Raises Unavailable unless the database answers and its schema is there."""
    with database_errors():
        await connection.execute(select(tasks.c.uid).limit(1))


async def _task_rows(connection: AsyncConnection, query: Select[tuple[object, ...]]) -> list[TaskRow]:
    with database_errors():
        return [TaskRow(**row) for row in (await connection.execute(query)).mappings()]


async def _apply(connection: AsyncConnection, items: Sequence[Item], to_rows: Callable[[Sequence[Item]], Batch]) -> int:
    """Write the items; when PostgreSQL blames a value, halve until the culprit stands alone, and leave it out."""
    if not items:
        return 0
    batch = to_rows(items)
    try:
        with database_errors():
            async with connection.begin_nested():
                await _write(connection, batch)
    except Exception as error:
        cause = error.__cause__
        if not isinstance(cause, exc.DBAPIError) or sqlstate(cause)[:2] not in _VALUE_CLASSES:
            raise
        if len(items) == 1:
            _log.error("history_item_refused", item=_name(items[0]), cause=str(error))
            return 0
        middle = len(items) // 2
        return await _apply(connection, items[:middle], to_rows) + await _apply(connection, items[middle:], to_rows)
    for rejected in batch.rejected:
        _log.error("history_event_unreadable", event_id=rejected.event_id, cause=rejected.cause)
    return len(items) - len(batch.rejected)


def _name(item: Event | Task) -> str:
    return item.id if isinstance(item, Event) else item.uid


async def _write(connection: AsyncConnection, batch: Batch) -> None:
    """Rows are sorted by key, so that two writers lock in the same order."""
    if batch.tasks:
        await connection.execute(UPSERT_TASK, batch.tasks)
    if batch.attempts:
        await connection.execute(MERGE_ATTEMPT, batch.attempts)
    if batch.runs:
        await connection.execute(KEEP_RUN, batch.runs)
    if batch.timeline:
        await connection.execute(ADD_LINE, batch.timeline)
    touched = {row["uid"] for row in batch.tasks} | {row["uid"] for row in batch.attempts if row["started_at"]}
    if touched:
        await connection.execute(MARK_RUNNING, {"uids": sorted(touched)})
