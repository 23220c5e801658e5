"""Items of arrays. While an array is open these rows are the truth of which of its items have ended; see
`docs/decisions/0010`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from taskflow_core.domain.items import ItemHistory, ItemRow, ItemState
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import MAX_MESSAGE_CHARS
from taskflow_core.errors import Conflict
from taskflow_core.store.engine import database_errors
from taskflow_core.store.fitting import fit_json, fit_text
from taskflow_core.store.tables import array_items, tasks

FAILED_RANGES = 200
WRITER_LOCK = 0x7461736B6974656D
"""Key of the lock that writers of items take, one transaction at a time; the bytes of "taskitem"."""
_COLUMNS = "uid, first_index, last_index, state, attempts, result, reason, error_type, message, ended_at"
_COPY = f"COPY new_items ({_COLUMNS}) FROM STDIN"
_STAGE = text("CREATE TEMP TABLE IF NOT EXISTS new_items (LIKE array_items) ON COMMIT DELETE ROWS")
_MERGE = text(f"INSERT INTO array_items ({_COLUMNS}) SELECT {_COLUMNS} FROM new_items")  # noqa: S608 - names of columns
# Of each new stretch: a row that begins in it, or the last one before it if that reaches into it. Asked before anything
# is added, since the index would lead through all that this transaction has added.
_ENDED_BEFORE = text("""
    SELECT count(*) FROM unnest(CAST(:uids AS text[]), CAST(:firsts AS integer[]), CAST(:lasts AS integer[]))
        AS fresh (uid, first, last)
    WHERE EXISTS (
        SELECT FROM array_items AS former
        WHERE former.uid = fresh.uid AND former.first_index BETWEEN fresh.first AND fresh.last)
    OR coalesce(
        (SELECT former.last_index FROM array_items AS former
         WHERE former.uid = fresh.uid AND former.first_index < fresh.first
         ORDER BY former.first_index DESC LIMIT 1), -1) >= fresh.first
""")
# https://en.wikipedia.org/wiki/Gaps_and_islands: neighbours become one range in the database, not in our memory.
_ENDED = text("""
    SELECT min(first_index), max(last_index) FROM (
        SELECT first_index, last_index, sum(begins) OVER (ORDER BY first_index) AS island FROM (
            SELECT first_index, last_index,
                CASE WHEN first_index = lag(last_index) OVER (ORDER BY first_index) + 1 THEN 0 ELSE 1 END AS begins
            FROM array_items WHERE uid = :uid) AS marked) AS numbered
    GROUP BY island ORDER BY 1
""")


async def store_items(connection: AsyncConnection, ended: Mapping[str, Sequence[ItemRow]], now: datetime) -> None:
    """Add items that ended, by the uids of their arrays.

    Raises:
        Unavailable: nothing was stored; come again.
        Conflict: some of them have ended before, as another writer says; nothing was stored.
    """
    stretches = [
        (uid, first, last)
        for uid, rows in ended.items()
        for first, last in RangeSet((row.first, row.last) for row in rows).pairs()
    ]
    uids, firsts, lasts = (list(column) for column in zip(*stretches, strict=True))
    with database_errors():
        await connection.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))
        asked = {"uids": uids, "firsts": firsts, "lasts": lasts}
        if before := (await connection.execute(_ENDED_BEFORE, asked)).scalar_one():
            raise Conflict(f"{before} of {len(stretches)} stretches of items have ended before")
        await connection.execute(_STAGE)
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None, "it is checked out"  # noqa: S101 - a mistake of ours, not of a user
        async with raw.driver_connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for uid, rows in ended.items():
                for row in rows:
                    await copy.write_row(_values(uid, row, now))
        await connection.execute(_MERGE)


def _values(uid: str, row: ItemRow, now: datetime) -> tuple[Any, ...]:
    result = None if row.result is None else json.dumps(fit_json(row.result), separators=(",", ":"))
    failed = row.state is ItemState.FAILED
    return (
        uid,
        row.first,
        row.last,
        row.state.value,
        row.attempts,
        result,
        row.reason.value if row.reason else None,
        fit_text(row.error_type, 253) if failed else None,
        fit_text(row.message, MAX_MESSAGE_CHARS) if failed else None,
        now,
    )


async def past_of(connection: AsyncConnection, uid: str) -> ItemHistory:
    """What has ended of an array.

    Raises:
        Unavailable: the database does not answer.
    """
    size = array_items.c.last_index - array_items.c.first_index + 1
    many = array_items.c.attempts > 1
    failed = array_items.c.state == ItemState.FAILED.value
    sums = select(
        func.coalesce(func.sum(size).filter(~failed), 0),
        func.coalesce(func.sum(size).filter(failed), 0),
        func.coalesce(func.sum(size).filter(many), 0),
    ).where(array_items.c.uid == uid)
    first = (
        select(array_items.c.first_index, array_items.c.last_index)
        .where(array_items.c.uid == uid, failed)
        .order_by(array_items.c.first_index)
        .limit(FAILED_RANGES)
    )
    with database_errors():
        ended = RangeSet((row[0], row[1]) for row in await connection.execute(_ENDED, {"uid": uid}))
        succeeded, lost, retried = (await connection.execute(sums)).one()
        shown = RangeSet((row[0], row[1]) for row in await connection.execute(first))
    return ItemHistory(ended, int(succeeded), int(lost), int(retried), shown)


async def failed_of(connection: AsyncConnection, namespace: str, uid: str) -> RangeSet | None:
    """The failed items of an array that has ended; None if the namespace has none of that uid.

    Raises:
        Unavailable: the database does not answer.
    """
    ended = [phase.value for phase in Phase if phase.terminal]
    former = select(tasks.c.uid).where(
        tasks.c.uid == uid,
        tasks.c.namespace == namespace,
        tasks.c.phase.in_(ended),
        func.jsonb_typeof(tasks.c.spec["array"]) == "object",
    )
    failed = select(array_items.c.first_index, array_items.c.last_index).where(
        array_items.c.uid == uid, array_items.c.state == ItemState.FAILED.value
    )
    with database_errors():
        if (await connection.execute(former)).first() is None:
            return None
        return RangeSet((row[0], row[1]) for row in await connection.execute(failed))


async def items_of(
    connection: AsyncConnection, uid: str, *, state: ItemState | None = None, after: int = -1, limit: int = 1000
) -> list[ItemRow]:
    """Items that ended, by their indices; neighbours that ended alike are one row. The next page comes `after` the last
    row's end.

    Raises:
        Unavailable: the database does not answer.
    """
    query = select(array_items).where(array_items.c.uid == uid, array_items.c.first_index > after)
    if state is not None:
        query = query.where(array_items.c.state == state.value)
    with database_errors():
        found = (await connection.execute(query.order_by(array_items.c.first_index).limit(limit))).mappings()
        return [
            ItemRow(
                row["first_index"],
                row["last_index"],
                ItemState(row["state"]),
                row["attempts"],
                result=row["result"],
                reason=Reason(row["reason"]) if row["reason"] else None,
                error_type=row["error_type"] or "",
                message=row["message"] or "",
            )
            for row in found
        ]
