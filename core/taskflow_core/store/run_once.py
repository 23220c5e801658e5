"""Runs of Tasks with `spec.rerun`: kept apart from the history, since they decide whether a Task runs again.

`repository` writes them, in the transaction that stores the end.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.run_once import PastRun
from taskflow_core.domain.task import StoredOutput
from taskflow_core.store.engine import database_errors
from taskflow_core.store.tables import run_once


async def find_run(connection: AsyncConnection, namespace: str, name: str, digest: str) -> PastRun | None:
    """How the work of that name and digest ended; None if it never did. It is noted that somebody asked.

    Raises:
        Unavailable: the database does not answer.
    """
    found = (
        update(run_once)
        .where(run_once.c.namespace == namespace, run_once.c.name == name, run_once.c.digest == digest)
        .values(used_at=func.now())
        .returning(*(run_once.c[name] for name in ("uid", "phase", "finished_at", "result", "outputs")))
    )
    with database_errors():
        row = (await connection.execute(found)).mappings().first()
    if row is None:
        return None
    outputs = tuple(StoredOutput.model_validate(output) for output in row["outputs"])
    return PastRun(row["uid"], Phase(row["phase"]), row["finished_at"], row["result"], outputs)


async def forget_runs(connection: AsyncConnection, namespace: str, name: str) -> int:
    """Let Tasks of that name run again; how many runs were forgotten.

    Raises:
        Unavailable: the database does not answer.
    """
    with database_errors():
        gone = await connection.execute(
            delete(run_once).where(run_once.c.namespace == namespace, run_once.c.name == name)
        )
    return gone.rowcount


async def prune_runs(connection: AsyncConnection, unused_since: datetime, limit: int) -> int:
    """Forget at most `limit` runs that nobody asked for since then; how many it were.

    Raises:
        Unavailable: the database does not answer.
    """
    key = (run_once.c.namespace, run_once.c.name, run_once.c.digest)
    old = select(*key).where(run_once.c.used_at < unused_since).order_by(run_once.c.used_at).limit(limit)
    # Once more, since one of them may have been asked for meanwhile.
    unused = run_once.c.used_at < unused_since
    with database_errors():
        gone = await connection.execute(delete(run_once).where(tuple_(*key).in_(old), unused))
    return gone.rowcount
