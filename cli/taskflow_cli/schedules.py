"""The table of TaskSchedules, and runs that are asked for by hand. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any

from taskflow_cli.output import times
from taskflow_cli.output.tables import Column, Row

RUN_NOW = "taskflow.dev/run-now"
"""Annotation with a token: the operator creates one Task for each token."""


def digest(token: str) -> str:
    """What the status keeps of a token, and the name of its Task ends with."""
    return sha256(token.encode()).hexdigest()[:8]


def run_name(schedule: str, token: str) -> str:
    """Name of the Task that a token asks for."""
    return f"{schedule}.run-{digest(token)}"


def seen_to(schedule: Row, token: str) -> bool:
    """Whether the operator has seen to a token: it created the Task, or declined to."""
    return _status(schedule).get("runNow") == digest(token)


def waiting_token(schedule: Row) -> str:
    """A token that the operator has not seen to yet; empty if there is none."""
    token = str((schedule["metadata"].get("annotations") or {}).get(RUN_NOW) or "")
    return token if token and not seen_to(schedule, token) else ""


def state(schedule: Row) -> str:
    """Suspended, or why the schedule is or is not ready, as one word."""
    if schedule["spec"].get("suspend"):
        return "Suspended"
    return str(_ready(schedule).get("reason") or "Unknown")


def _status(schedule: Row) -> dict[str, Any]:
    return schedule.get("status") or {}


def _ready(schedule: Row) -> Row:
    conditions = _status(schedule).get("conditions") or ()
    found: Row = next((each for each in conditions if each["type"] == "Ready"), {})
    return found


def _field(name: str) -> Callable[[Row, datetime], str]:
    return lambda schedule, _: str(_status(schedule).get(name, ""))


def _next(schedule: Row, now: datetime) -> str:
    due = _status(schedule).get("nextScheduleTime")
    return times.duration(times.parse(due) - now) if due else ""


SCHEDULE_COLUMNS = (
    Column("NAME", lambda schedule, _: str(schedule["metadata"]["name"]), shrinks=True),
    Column("SCHEDULE", _field("schedule"), shrinks=True),
    Column("ZONE", lambda schedule, _: str(schedule["spec"].get("timeZone", "")), shrinks=True),
    Column("STATE", lambda schedule, _: state(schedule), colour={"Suspended": 33}.get),
    Column("ACTIVE", _field("activeCount")),
    Column("LAST", lambda schedule, now: times.age(_status(schedule).get("lastScheduleTime"), now)),
    Column("OUTCOME", _field("lastOutcome"), colour={"Failed": 31, "Succeeded": 32, "Active": 36}.get),
    Column("NEXT IN", _next),
    Column("POLICY", lambda schedule, _: str(schedule["spec"].get("concurrencyPolicy", "")), wide=True),
    Column("SKIPPED", _field("skipped"), wide=True),
    Column("MISSED", _field("missed"), wide=True),
    Column("MESSAGE", lambda schedule, _: str(_ready(schedule).get("message", "")), wide=True, shrinks=True),
)
RUN_COLUMNS = (
    Column("TIME", lambda run, _: times.local(run["scheduledTime"])),
    Column("OUTCOME", lambda run, _: str(run["outcome"]), colour={"Missed": 31, "Skipped": 33}.get),
    Column("TASK", lambda run, _: str(run.get("taskName") or ""), shrinks=True),
    Column("PHASE", lambda run, _: str(run.get("phase") or ""), colour={"Failed": 31, "Succeeded": 32}.get),
    Column("REASON", lambda run, _: ": ".join(str(run[f]) for f in ("reason", "message") if run.get(f)), shrinks=True),
)
TICK_COLUMNS = (
    Column("TIME", lambda tick, _: times.local(tick["scheduledTime"])),
    Column("IN", lambda tick, now: times.duration(times.parse(tick["scheduledTime"]) - now)),
    Column("IN ITS ZONE", lambda tick, _: str(tick["localTime"])),
)
