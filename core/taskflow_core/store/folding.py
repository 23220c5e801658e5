"""Events to rows, without I/O: what a batch means for the three tables, whatever its order and repeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain.events import ENDS, SEQUENCE, Continuation, Event, EventKind, Failure, Success, TaskSnapshot
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, Rerun, Task, TaskSpec
from taskflow_core.store.fitting import fit_json, fit_text
from taskflow_core.store.run_rows import best_runs, run_of

Row = dict[str, Any]
"""Values of one row by column name, as the driver takes them."""

_SNAPSHOTS = frozenset({EventKind.PENDING, EventKind.QUEUED, EventKind.SETTLED, EventKind.DELETED})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_INTEGER = 2**31 - 1
_MAX_WORKER_CHARS = 253


@dataclass(frozen=True)
class Rejected:
    """An event that can never be stored; the rest of its batch goes on without it."""

    event_id: str
    cause: str


@dataclass(frozen=True)
class Batch:
    """Rows of a batch: at most one a task, one an attempt and one an event, sorted by key."""

    tasks: tuple[Row, ...] = ()
    attempts: tuple[Row, ...] = ()
    timeline: tuple[Row, ...] = ()
    runs: tuple[Row, ...] = ()
    """Of Tasks with `spec.rerun` that ended."""
    rejected: tuple[Rejected, ...] = ()


def fold(events: Iterable[Event]) -> Batch:
    """Coalesce events into rows.

    Of the snapshots of one uid the greatest order wins; of two with equal order, and of two starts or two ends of one
    attempt, the earlier in the stream. So the result depends neither on the order of `events` nor on repeats.
    """
    tasks: dict[str, Row] = {}
    attempts: dict[tuple[str, int], Row] = {}
    lines: dict[str, Row] = {}
    runs: list[Row] = []
    rejected: list[Rejected] = []
    readable: list[tuple[tuple[int, int], Event]] = []
    for event in {event.entry: event for event in events}.values():
        try:
            readable.append((stream_position(event.id), event))
        except ValueError as error:
            rejected.append(Rejected(event.id, str(error)))
    for _, event in sorted(readable, key=lambda pair: pair[0]):
        try:
            line, attempt, task = _read(event)
            run = None if task is None else _run(event, task)
        # RecursionError: JSON that is nested too deeply. OverflowError: a time that no calendar has.
        except (ValueError, RecursionError, OverflowError) as error:
            rejected.append(Rejected(event.id, f"{type(error).__name__}: {error}"[:500]))
            continue
        if line is not None:
            lines[line["event_id"]] = line
        if attempt is not None:
            key = (attempt["uid"], attempt["attempt"])
            attempts[key] = _merge_attempt(attempts.get(key), attempt)
        if run is not None:
            runs.append(run)
        if task is not None:
            former = tasks.get(task["uid"])
            if former is None or _order(former) < _order(task):
                tasks[task["uid"]] = task
    return Batch(
        tuple(tasks[uid] for uid in sorted(tasks)),
        tuple(attempts[key] for key in sorted(attempts)),
        tuple(lines[event_id] for event_id in sorted(lines)),
        best_runs(runs),
        tuple(sorted(rejected, key=lambda one: one.event_id)),
    )


def mirror(tasks: Sequence[Task]) -> Batch:
    """Rows of Tasks as the API server has them now, for when events were lost.

    Their order is that of the event which would have said the same, so that later events still count as newer.
    """
    rows = [_mirrored(task) for task in tasks]
    runs = [run_of(row, task.spec, attempts=task.status.attempts) for task, row in zip(tasks, rows, strict=True)]
    return Batch(
        tasks=tuple(sorted(rows, key=lambda row: str(row["uid"]))),
        runs=best_runs([run for run in runs if run is not None]),
    )


def stream_position(event_id: str) -> tuple[int, int]:
    """A stream id `milliseconds-number` as numbers, which sort as the stream does. What follows an `@` names the
    stream.

    Raises:
        ValueError: it is not a stream id.
    """
    milliseconds, _, number = event_id.partition("@")[0].partition("-")
    try:
        return int(milliseconds), int(number)
    except ValueError:
        raise ValueError(f"expected a stream id like 1700000000000-0, found {event_id!r}") from None


def _read(event: Event) -> tuple[Row | None, Row | None, Row | None]:
    """The timeline row, and the attempt's and task's where the event speaks of them.

    Of the chunks of an array only what was refused is a line of its own: there may be millions, and rows tell of their
    items.
    """
    if not event.uid or not 1 <= event.attempt <= _MAX_INTEGER:
        raise ValueError(f"expected a uid and an attempt of 1 or more, found {event.uid!r}, {event.attempt}")
    at = _time(event.time_ms or stream_position(event.id)[0])
    line: Row = {
        "event_id": str(event.entry),
        "uid": fit_text(event.uid),
        "attempt": event.attempt,
        "kind": event.kind.value,
        "at": at,
        "worker": fit_text(event.worker, _MAX_WORKER_CHARS),
        "reason": "",
        "message": "",
    }
    if event.chunk is not None and event.kind not in (EventKind.DUPLICATE, EventKind.STALE):
        # An array has one attempt, which began with the first of its chunks.
        first = _attempt(line | {"attempt": 1, "worker": ""}) | {"started_at": at}
        return None, first if event.kind is EventKind.STARTED else None, None
    if event.kind in _SNAPSHOTS:
        snapshot = TaskSnapshot.model_validate(event.payload)
        task = _snapshot_row(event, snapshot, at)
        return line | {"reason": task["reason"], "message": task["message"]}, None, task
    if event.kind is EventKind.STARTED:
        return line, _attempt(line) | {"started_at": at}, None
    if event.kind not in ENDS:
        return line, None, None
    told = _told(event)
    end = _attempt(line) | {"finished_at": at, "outcome": event.kind.value} | told
    return line | {"reason": told.get("reason", ""), "message": told.get("message", "")}, end, None


def _told(event: Event) -> Row:
    """What the end of an attempt says."""
    if event.kind is EventKind.SUCCEEDED:
        return {"run_ms": Success.model_validate(event.payload).run_ms}
    if event.kind is EventKind.AGAIN:
        asked = Continuation.model_validate(event.payload)
        message = fit_text(asked.message, MAX_MESSAGE_CHARS)
        return {"reason": Reason.AGAIN.value, "message": message, "run_ms": asked.run_ms}
    failure = Failure.model_validate(event.payload)
    return {
        "reason": failure.reason.value,
        "error_type": fit_text(failure.type, 253),
        "message": fit_text(failure.message, MAX_MESSAGE_CHARS),
        "run_ms": failure.run_ms,
    }


def _run(event: Event, task: Row) -> Row | None:
    # Nearly all Tasks: their specification need not be read once more.
    if event.payload["spec"].get("rerun", Rerun.ALWAYS.value) == Rerun.ALWAYS.value:
        return None
    told = TaskSnapshot.model_validate(event.payload)
    return run_of(task, TaskSpec.model_validate(told.spec), attempts=told.attempts)


def _attempt(line: Row) -> Row:
    return {
        "uid": line["uid"],
        "attempt": line["attempt"],
        "worker": line["worker"] or None,
        **dict.fromkeys(("started_at", "finished_at", "outcome", "reason", "error_type", "message", "run_ms")),
    }


def _merge_attempt(former: Row | None, new: Row) -> Row:
    """Start and end each as first told; never parts of two ends."""
    if former is None:
        return new
    merged = dict(former)
    merged["worker"] = former["worker"] or new["worker"]
    if former["started_at"] is None:
        merged["started_at"] = new["started_at"]
    if former["outcome"] is None:
        for column in ("finished_at", "outcome", "reason", "error_type", "message", "run_ms"):
            merged[column] = new[column]
    return merged


def _snapshot_row(event: Event, snapshot: TaskSnapshot, at: datetime) -> Row:
    spec = TaskSpec.model_validate(snapshot.spec)
    return {
        "uid": fit_text(event.uid),
        "namespace": fit_text(snapshot.namespace),
        "name": fit_text(snapshot.name),
        "handler": fit_text(spec.handler),
        "queue": fit_text(spec.queue),
        "priority": spec.priority,
        "spec": fit_json(snapshot.spec),
        "phase": snapshot.phase.value,
        "reason": fit_text(snapshot.reason, 64),
        "message": fit_text(snapshot.message, MAX_MESSAGE_CHARS),
        "attempt": event.attempt,
        "seq": event.sequence,
        "created_at": snapshot.created,
        "started_at": snapshot.start_time,
        "finished_at": snapshot.completion_time,
        "deleted_at": at if event.kind is EventKind.DELETED else None,
        "result": fit_json(snapshot.result),
        "outputs": fit_json([output.model_dump(mode="json", by_alias=True) for output in snapshot.outputs]),
        "labels": snapshot.labels,
    }


def _mirrored(task: Task) -> Row:
    status = task.status
    phase = status.phase or Phase.PENDING
    kind = {Phase.PENDING: EventKind.PENDING, Phase.QUEUED: EventKind.QUEUED, Phase.RUNNING: EventKind.STARTED}.get(
        phase, EventKind.SETTLED
    )
    return {
        "uid": fit_text(task.uid),
        "namespace": fit_text(task.namespace),
        "name": fit_text(task.name),
        "handler": fit_text(task.spec.handler),
        "queue": fit_text(task.spec.queue),
        "priority": task.spec.priority,
        "spec": fit_json(task.spec.model_dump(mode="json", by_alias=True)),
        "phase": phase.value,
        "reason": fit_text(status.reason, 64),
        "message": fit_text(status.message, MAX_MESSAGE_CHARS),
        "attempt": status.attempt,
        "seq": SEQUENCE[kind],
        "created_at": task.created,
        "started_at": status.start_time,
        "finished_at": status.completion_time,
        "deleted_at": None,
        "result": fit_json(status.result),
        "outputs": fit_json([output.model_dump(mode="json", by_alias=True) for output in status.outputs]),
        "labels": task.labels,
    }


def _order(row: Row) -> tuple[int, int]:
    return row["attempt"], row["seq"]


def _time(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
