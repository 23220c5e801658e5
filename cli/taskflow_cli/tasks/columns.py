"""The table of Tasks, and what of a Task more than one command shows. Pure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from taskflow_cli.output import times
from taskflow_cli.output.tables import Column, Row

PHASES = ("Pending", "Suspended", "Queued", "Running", "Succeeded", "Failed", "Cancelled")
ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})
_COLOURS = {"Running": 36, "Succeeded": 32, "Failed": 31, "Cancelled": 33, "Suspended": 33}


def status_of(task: Row) -> dict[str, Any]:
    """The status; empty before the operator wrote one."""
    return task.get("status") or {}


def phase(task: Row) -> str:
    """The phase; Pending before the operator wrote one."""
    return str(status_of(task).get("phase") or "Pending")


def ended(task: Row) -> bool:
    """Whether it ended, with any outcome."""
    return phase(task) in ENDED


def progress(task: Row) -> str:
    """How much is done: of an array its items, else what the handler reported."""
    status = status_of(task)
    if items := (status.get("array") or {}).get("items"):
        return str(items)
    reported = status.get("progress") or {}
    done, total = reported.get("done"), reported.get("total")
    if done is None:
        return ""
    return f"{done}/{total} ({100 * done // total}%)" if total else str(done)


def result(task: Row) -> str:
    """The result as JSON, or where it is stored; empty without one."""
    value = status_of(task).get("result")
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _status(field: str) -> Any:
    def cell(task: Row, _: datetime) -> str:
        value = status_of(task).get(field)
        return "" if value is None else str(value)

    return cell


def name(row: Row, _: datetime) -> str:
    """The name of any resource."""
    return str(row["metadata"]["name"])


def namespace(row: Row, _: datetime) -> str:
    """The namespace of any resource."""
    return str(row["metadata"].get("namespace", ""))


def age(row: Row, now: datetime) -> str:
    """The age of any resource."""
    return times.age(row["metadata"].get("creationTimestamp"), now)


def as_resource(view: Row) -> dict[str, Any]:
    """A Task of the history, as far as the table shows it, in the shape of the resource."""
    started, finished = view.get("startedAt"), view.get("finishedAt")
    length = times.duration(times.parse(finished) - times.parse(started)) if started and finished else None
    return {
        "metadata": {"name": view["name"], "namespace": view["namespace"], "creationTimestamp": view["createdAt"]},
        "spec": {"handler": view["handler"], "queue": view["queue"]},
        "status": {
            **{field: view.get(field) for field in ("phase", "reason", "message", "attempt")},
            "duration": length,
        },
    }


def outcome_of(view: Row) -> str:
    """How a Task of the REST API ended, in a line."""
    if view["phase"] == "Succeeded":
        value = view.get("result")
        return "succeeded" + ("" if value is None else f": {json.dumps(value, ensure_ascii=False)}")
    why = ": ".join(str(view[field]) for field in ("reason", "message") if view.get(field))
    return f"{str(view['phase']).lower()}: {why}"


NAMESPACE = Column("NAMESPACE", namespace, shrinks=True)
TASK_COLUMNS = (
    Column("NAME", name, shrinks=True),
    Column("PHASE", lambda task, _: phase(task), colour=_COLOURS.get),
    Column("QUEUE", lambda task, _: str(task["spec"].get("queue", "default")), shrinks=True),
    Column("ATTEMPT", _status("attempt")),
    Column("PROGRESS", lambda task, _: progress(task), shrinks=True),
    Column("REASON", _status("reason"), shrinks=True),
    Column("AGE", age),
    Column("HANDLER", lambda task, _: str(task["spec"]["handler"]), wide=True, shrinks=True),
    Column("WORKER", _status("worker"), wide=True, shrinks=True),
    Column("DURATION", _status("duration"), wide=True),
    Column("MESSAGE", _status("message"), wide=True, shrinks=True),
)
