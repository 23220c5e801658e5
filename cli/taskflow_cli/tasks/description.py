"""A Task as a page of text. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from taskflow_cli.output import times
from taskflow_cli.output.tables import Column, Row, Screen, table
from taskflow_cli.output.text import safe
from taskflow_cli.tasks import columns

_CONDITIONS = (
    Column("TYPE", lambda row, _: row["type"]),
    Column("STATUS", lambda row, _: row["status"]),
    Column("REASON", lambda row, _: row.get("reason", ""), shrinks=True),
    Column("SINCE", lambda row, _: times.local(row.get("lastTransitionTime"))),
    Column("MESSAGE", lambda row, _: row.get("message", ""), shrinks=True),
)
_EVENTS = (
    Column("LAST SEEN", lambda row, now: times.age(_seen(row), now)),
    Column("TYPE", lambda row, _: row.get("type", ""), colour={"Warning": 33}.get),
    Column("REASON", lambda row, _: row.get("reason", "")),
    Column("MESSAGE", lambda row, _: row.get("note", ""), shrinks=True),
)


def describe(task: Row, events: Sequence[Row] | None, now: datetime, screen: Screen) -> str:
    """The page.

    Args:
        task: The Task.
        events: Its Events, or None if the caller may not read them.
        now: The current time.
        screen: What it is printed to.
    """
    return "\n".join(_blocks(task, events, now, screen))


def _blocks(task: Row, events: Sequence[Row] | None, now: datetime, screen: Screen) -> list[str]:
    status = columns.status_of(task)
    blocks = [_fields(_head(task)), _fields(_progress(task, now))]
    if error := status.get("lastError"):
        blocks.append(_error(error))
    if outputs := status.get("outputs"):
        blocks.append(_titled("Outputs", _outputs(outputs, now, screen)))
    if conditions := status.get("conditions"):
        blocks.append(_titled("Conditions", table(_CONDITIONS, conditions, now, _inner(screen))))
    if events is None:
        blocks.append("Events: you may not read them here\n")
    elif events:
        newest = sorted(events, key=lambda row: _seen(row) or "")
        blocks.append(_titled("Events", table(_EVENTS, newest, now, _inner(screen))))
    return blocks


def _head(task: Row) -> list[tuple[str, str]]:
    meta, spec = task["metadata"], task["spec"]
    retry = spec.get("retryPolicy") or {}
    return [
        ("Name", meta["name"]),
        ("Namespace", meta.get("namespace", "")),
        ("UID", meta.get("uid", "")),
        ("Labels", ", ".join(f"{key}={value}" for key, value in (meta.get("labels") or {}).items())),
        ("Retry of", (meta.get("annotations") or {}).get("taskflow.dev/retried-from", "")),
        ("Owner", ", ".join(f"{each['kind']}/{each['name']}" for each in meta.get("ownerReferences") or ())),
        ("Handler", spec["handler"]),
        ("Arguments", ", ".join(_json(each) for each in spec.get("args") or ())),
        ("Parameters", ", ".join(f"{key}={_json(value)}" for key, value in (spec.get("kwargs") or {}).items())),
        ("Queue", spec.get("queue", "default")),
        ("Priority", str(spec.get("priority", 0))),
        ("Isolation", spec.get("isolation", "Worker")),
        ("Attempts", f"at most {retry['maxAttempts']}" if retry.get("maxAttempts") else ""),
        ("Depends on", ", ".join(each["name"] for each in spec.get("dependsOn") or ())),
        ("Not before", times.local(spec.get("notBefore"))),
        ("Inputs", ", ".join(f"{each['name']} ({each['key']})" for each in spec.get("inputs") or ())),
    ]


def _progress(task: Row, now: datetime) -> list[tuple[str, str]]:
    status = columns.status_of(task)
    created = task["metadata"].get("creationTimestamp")
    fields = [
        ("Phase", columns.phase(task)),
        ("Reason", str(status.get("reason") or "")),
        ("Message", str(status.get("message") or "")),
        ("Attempt", str(status.get("attempt") or "")),
        ("Worker", str(status.get("worker") or "")),
        ("Progress", columns.progress(task)),
        ("Step", str((status.get("progress") or {}).get("message") or "")),
        ("Failed items", str((status.get("array") or {}).get("failedIndexes") or "")),
        ("Created", f"{times.local(created)} ({times.age(created, now)} ago)" if created else ""),
        ("Next attempt", times.local(status.get("nextAttemptTime"))),
        ("Started", times.local(status.get("startTime"))),
        ("Ended", times.local(status.get("completionTime"))),
        ("Duration", str(status.get("duration") or "")),
        ("Result", columns.result(task)),
    ]
    if task["spec"].get("cancel") and not columns.ended(task):
        fields.insert(1, ("Cancelling", "yes"))
    return fields


def _fields(fields: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{name + ':':<14}{safe(value)}\n" for name, value in fields if value)


def _error(error: Row) -> str:
    head = f"attempt {error['attempt']}, {error['reason']}"
    what = ": ".join(str(error[field]) for field in ("type", "message") if error.get(field))
    trace = str(error.get("trace") or "").rstrip()
    lines = [f"Last error: {head}", *(safe(part, lines=True) for part in (what, trace) if part)]
    return "\n  ".join("\n".join(lines).splitlines()) + "\n"


def _outputs(outputs: Sequence[Row], now: datetime, screen: Screen) -> str:
    shown = (
        Column("NAME", lambda row, _: row.get("name", ""), shrinks=True),
        Column("BYTES", lambda row, _: str(row.get("sizeBytes", ""))),
        Column("KEY", lambda row, _: row.get("key", ""), shrinks=True),
    )
    return table(shown, outputs, now, _inner(screen))


def _titled(title: str, text: str) -> str:
    return f"{title}:\n" + "".join(f"  {line}\n" for line in text.splitlines())


def _inner(screen: Screen) -> Screen:
    return Screen(max(1, screen.width - 2) if screen.width else 0, screen.colour)


def _seen(event: Row) -> str | None:
    series: dict[str, Any] = event.get("series") or {}
    return series.get("lastObservedTime") or event.get("eventTime") or event.get("deprecatedLastTimestamp")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
