"""The table of WorkerPools. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from taskflow_cli.output import times
from taskflow_cli.output.tables import Column, Row


def state(pool: Row) -> str:
    """Draining, Paused, or why the pool is or is not ready, as one word."""
    spec = pool["spec"]
    if spec.get("drain"):
        return "Draining"
    if spec.get("paused"):
        return "Paused"
    return str(_ready(pool).get("reason") or "Unknown")


def _ready(pool: Row) -> Row:
    conditions = (pool.get("status") or {}).get("conditions") or ()
    found: Row = next((each for each in conditions if each["type"] == "Ready"), {})
    return found


def _status(field: str) -> Callable[[Row, datetime], str]:
    return lambda pool, _: str((pool.get("status") or {}).get(field, ""))


def _scaling(field: str) -> Callable[[Row, datetime], str]:
    return lambda pool, _: str((pool["spec"].get("scaling") or {}).get(field, ""))


POOL_COLUMNS = (
    Column("NAME", lambda pool, _: str(pool["metadata"]["name"]), shrinks=True),
    Column("STATE", lambda pool, _: state(pool), colour={"Paused": 33, "Draining": 33}.get),
    Column("READY", _status("readyReplicas")),
    Column("DESIRED", _status("desiredReplicas")),
    Column("QUEUED", _status("queued")),
    Column("BUSY", _status("busySlots")),
    Column("SLOTS", _status("slots")),
    Column("QUEUES", lambda pool, _: ",".join(pool["spec"].get("queues", ())), shrinks=True),
    Column("AGE", lambda pool, now: times.age(pool["metadata"].get("creationTimestamp"), now)),
    Column("MIN", _scaling("minReplicas"), wide=True),
    Column("MAX", _scaling("maxReplicas"), wide=True),
    Column("POOL", lambda pool, _: str(pool["spec"].get("pool", "")), wide=True),
    Column("CONCURRENCY", lambda pool, _: str(pool["spec"].get("concurrency", "")), wide=True),
    Column("MESSAGE", lambda pool, _: str(_ready(pool).get("message", "")), wide=True, shrinks=True),
)
