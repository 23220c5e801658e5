"""Why a Task does not run: what the operator says, and the state of what it waits for. Pure.

The operator decides; this shows its decision beside the facts, and decides nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from taskflow_cli.output import times
from taskflow_cli.output.tables import Row
from taskflow_cli.output.text import safe
from taskflow_cli.pools import state
from taskflow_cli.tasks import columns

LATE_SECONDS = 30
"""A Task without a status for longer is not being handled."""


def explain(task: Row, pools: Sequence[Row], needed: Mapping[str, Row | None], now: datetime) -> list[str]:
    """The explanation, line by line.

    Args:
        task: The Task.
        pools: All pools of its namespace.
        needed: The Tasks of `spec.dependsOn` by name, None for one that does not exist.
        now: The current time.
    """
    status, name = columns.status_of(task), task["metadata"]["name"]
    if columns.ended(task):
        return _ended(task)
    if columns.phase(task) == "Running":
        since = times.age(status.get("startTime"), now)
        lines = [f"{name} runs: attempt {status.get('attempt', 1)} on {status.get('worker') or 'a worker'}"]
        lines += [f"its first attempt started {since} ago"] if since else []
        lines += [f"progress: {columns.progress(task)}"] if columns.progress(task) else []
    else:
        lines = [f"{name} is {columns.phase(task)}: {_reason(task, now)}"]
        lines += _dependencies(task, needed)
        lines += _pools(task, pools)
    if task["spec"].get("cancel"):
        lines.append("it is being cancelled")
    if error := status.get("lastError"):
        lines.append(f"attempt {error['attempt']} ended with {error['reason']}: {_error(error)}")
    return [safe(line) for line in lines]


def _ended(task: Row) -> list[str]:
    status, name = columns.status_of(task), task["metadata"]["name"]
    lines = [f"{name} {columns.phase(task).lower()}: {_joined(status)}"]
    if columns.phase(task) == "Failed" and (error := status.get("lastError")):
        lines.append(f"attempt {error['attempt']} ended with {error['reason']}: {_error(error)}")
    if columns.phase(task) != "Succeeded":
        lines.append(f"run it again with: taskflow retry {name}")
    return [safe(line) for line in lines]


def _reason(task: Row, now: datetime) -> str:
    status = columns.status_of(task)
    if text := _joined(status):
        return text
    seconds = (now - times.parse(task["metadata"]["creationTimestamp"])).total_seconds()
    if seconds > LATE_SECONDS:
        return (
            f"the operator has not looked at it for {int(seconds)} s; is it running, and does it serve this namespace?"
        )
    return "the operator has not looked at it yet"


def _joined(status: Mapping[str, Any]) -> str:
    return ": ".join(str(status[field]) for field in ("reason", "message") if status.get(field))


def _error(error: Row) -> str:
    return ": ".join(str(error[field]) for field in ("type", "message") if error.get(field))


def _dependencies(task: Row, needed: Mapping[str, Row | None]) -> list[str]:
    lines = []
    for each in task["spec"].get("dependsOn") or ():
        other = needed.get(each["name"])
        found = "does not exist" if other is None else f"is {columns.phase(other)}"
        lines.append(f"needs {each['name']} to be {each.get('outcome', 'Succeeded')}: it {found}")
    return lines


def _pools(task: Row, pools: Sequence[Row]) -> list[str]:
    queue = task["spec"].get("queue", "default")
    serving = [pool for pool in pools if queue in pool["spec"].get("queues", ())]
    if not serving:
        others = sorted({each for pool in pools for each in pool["spec"].get("queues", ())})
        served = f"served queues: {', '.join(others)}" if others else "the namespace has no WorkerPool"
        return [f"no WorkerPool serves queue {queue!r}; {served}"]
    lines = []
    for pool in serving:
        status = pool.get("status") or {}
        busy = f"{status.get('busySlots', 0)} of {status.get('slots', 0)} slots busy, {status.get('queued', 0)} waiting"
        lines.append(f"pool {pool['metadata']['name']} serves queue {queue!r}: {state(pool)}, {busy}")
    return lines
