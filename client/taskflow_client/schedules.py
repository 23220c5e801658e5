"""Calls for TaskSchedules and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from taskflow_client.calls import Answer, Call, as_model, nothing, path, query
from taskflow_client.models import NextTicks, RunNow, Schedule, SchedulePage, ScheduleRunPage


def create(
    namespace: str,
    name: str,
    handler: str,
    *,
    labels: Mapping[str, str] | None = None,
    task: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **spec: Any,
) -> Call[Schedule]:
    """Create a TaskSchedule.

    Args:
        namespace: Namespace of the schedule and its Tasks.
        name: Name of the schedule, at most 52 characters without a dot.
        handler: The handler that its Tasks run.
        labels: Labels of the schedule.
        task: Other fields of the spec of its Tasks: `{"kwargs": {...}, "queue": "reports"}`.
        dry_run: Validate it without creating it.
        spec: Fields of its own spec: `schedules=["30 2 * * *"]`, `timeZone="Europe/Berlin"`, `every={"seconds": 60}`.
    """
    template = {"spec": {"handler": handler, **(task or {})}}
    body: dict[str, Any] = {"name": name, "spec": {**spec, "taskTemplate": template}}
    if labels:
        body["labels"] = dict(labels)
    return Call("POST", path(namespace, "schedules"), _schedule, params=query(dry_run=dry_run or None), body=body)


def listed(namespace: str, *, label_selector: str | None = None, limit: int | None = None) -> Call[SchedulePage]:
    """List schedules by name. `Client.pages` gets all pages."""
    params = query(label_selector=label_selector, limit=limit)

    def following(page: SchedulePage) -> Call[SchedulePage] | None:
        return replace(call, params=params | {"cursor": page.next_cursor}) if page.next_cursor else None

    call = Call("GET", path(namespace, "schedules"), as_model(SchedulePage), params=params, following=following)
    return call


def get(namespace: str, name: str) -> Call[Schedule]:
    """Get a schedule."""
    return Call("GET", path(namespace, "schedules", name), _schedule)


def change(namespace: str, name: str, *, if_match: str | None = None, **spec: Any) -> Call[Schedule]:
    """Change fields of the spec; None sets the default. With `if_match`, only if it has not changed since."""
    headers = {"If-Match": if_match} if if_match is not None else {}
    return Call("PATCH", path(namespace, "schedules", name), _schedule, headers=headers, body={"spec": spec})


def delete(namespace: str, name: str) -> Call[None]:
    """Delete a schedule, and with it its Tasks. The history is kept."""
    return Call("DELETE", path(namespace, "schedules", name), nothing)


def suspend(namespace: str, name: str) -> Call[Schedule]:
    """Run no tick until it is resumed."""
    return Call("POST", path(namespace, "schedules", name) + ":suspend", _schedule)


def resume(namespace: str, name: str) -> Call[Schedule]:
    """Go on with the next tick."""
    return Call("POST", path(namespace, "schedules", name) + ":resume", _schedule)


def run(namespace: str, name: str, *, idempotency_key: str | None = None) -> Call[RunNow]:
    """Run it now, outside of its timing. With a key, the call is idempotent."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
    return Call("POST", path(namespace, "schedules", name) + ":run", as_model(RunNow), headers=headers)


def backfill(
    namespace: str,
    name: str,
    backfill_name: str,
    start: datetime,
    end: datetime,
    *,
    parallelism: int | None = None,
    order: str | None = None,
) -> Call[Schedule]:
    """Run the ticks from `start` to before `end` that have not run.

    Args:
        namespace: Namespace of the schedule.
        name: Its name.
        backfill_name: Name of the backfill. The same call again changes nothing.
        start: With a time zone.
        end: With a time zone.
        parallelism: Most of its Tasks at a time, 1 by default.
        order: `OldestFirst` (default) or `NewestFirst`.
    """
    body: dict[str, Any] = {"name": backfill_name, "from": start.isoformat(), "to": end.isoformat()}
    body |= {key: value for key, value in (("parallelism", parallelism), ("order", order)) if value is not None}
    return Call("POST", path(namespace, "schedules", name) + ":backfill", _schedule, body=body)


def upcoming(namespace: str, name: str, *, count: int | None = None) -> Call[NextTicks]:
    """The next ticks of a schedule."""
    where = path(namespace, "schedules", name, "next")
    return Call("GET", where, as_model(NextTicks), params=query(count=count))


def preview(namespace: str, *, name: str | None = None, count: int | None = None, **timing: Any) -> Call[NextTicks]:
    """The next ticks of a timing that no schedule needs to have.

    Args:
        namespace: Namespace of the schedule; `H` depends on it.
        name: Name of the schedule; `H` depends on it.
        count: How many.
        timing: `schedules`, `every`, `timeZone`, `startTime`, `endTime`.
    """
    body: dict[str, Any] = {"spec": timing} | ({"name": name} if name is not None else {})
    return Call(
        "POST", path(namespace, "schedules") + ":next", as_model(NextTicks), params=query(count=count), body=body
    )


def runs(
    namespace: str, name: str, *, outcome: str | None = None, backfill: str | None = None, limit: int | None = None
) -> Call[ScheduleRunPage]:
    """List the runs of a schedule, newest tick first. `Client.pages` gets all pages.

    Args:
        namespace: Namespace of the schedule.
        name: Its name; it may be deleted.
        outcome: `Created`, `Skipped` or `Missed`.
        backfill: Name of a backfill.
        limit: Most runs of a page.
    """
    params = query(outcome=outcome, backfill=backfill, limit=limit)

    def following(page: ScheduleRunPage) -> Call[ScheduleRunPage] | None:
        return replace(call, params=params | {"cursor": page.next_cursor}) if page.next_cursor else None

    where = path(namespace, "schedules", name, "runs")
    call = Call("GET", where, as_model(ScheduleRunPage), params=params, following=following)
    return call


def _schedule(answer: Answer) -> Schedule:
    return Schedule.model_validate_json(answer.body).model_copy(update={"etag": answer.headers.get("etag", "")})
