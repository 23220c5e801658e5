"""Which Tasks stay until the status of their schedule has them."""

from __future__ import annotations

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_operator.schedules.rules.retention import is_needed
from tests.builders import NOW, make_task
from tests.unit.taskflow_operator.fakes import at
from tests.unit.taskflow_operator.schedules.objects import make_schedule, run_of


def text(second: float) -> str:
    return at(second).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("tick", "needed"), [(59, False), (60, False), (61, True)])
def test_a_task_stays_while_its_tick_is_beyond_the_cursor(tick: float, *, needed: bool) -> None:
    schedule = make_schedule(status={"cursor": text(60)})
    assert is_needed(schedule, run_of("a", tick=at(tick), phase=Phase.SUCCEEDED)) is needed


def test_without_a_cursor_the_creation_of_the_schedule_is_it() -> None:
    assert is_needed(make_schedule(), run_of("a", tick=at(1)))
    assert not is_needed(make_schedule(), run_of("a", tick=NOW))


def test_while_a_schedule_is_suspended_no_tick_comes_again() -> None:
    condition = {"type": "Suspended", "status": "True", "reason": "Suspended", "lastTransitionTime": text(70)}
    schedule = make_schedule(status={"cursor": text(60), "conditions": [condition]})
    assert not is_needed(schedule, run_of("a", tick=at(61)))


BACKFILL = {"name": "b", "from": text(-1000), "to": text(0)}


@pytest.mark.parametrize(
    ("order", "status", "needed"),
    [
        ("OldestFirst", None, True),
        ("OldestFirst", {"name": "b"}, True),
        ("OldestFirst", {"name": "b", "cursor": text(-600)}, True),
        ("OldestFirst", {"name": "b", "cursor": text(-500)}, False),
        ("OldestFirst", {"name": "b", "cursor": text(-500), "running": [text(-500)]}, True),
        ("OldestFirst", {"name": "b", "cursor": text(-600), "complete": True}, False),
        ("NewestFirst", {"name": "b", "cursor": text(-400)}, True),
        ("NewestFirst", {"name": "b", "cursor": text(-500)}, False),
    ],
)
def test_a_task_of_a_backfill_stays_until_that_has_counted_its_end(
    order: str, status: dict[str, object] | None, *, needed: bool
) -> None:
    schedule = make_schedule(backfills=[{**BACKFILL, "order": order}], status={"backfills": [status] if status else []})
    assert is_needed(schedule, run_of("a", tick=at(-500), backfill="b")) is needed


def test_tasks_of_a_backfill_that_was_removed_and_tasks_of_no_schedule_may_go() -> None:
    assert not is_needed(make_schedule(), run_of("a", tick=at(500), backfill="b"))
    assert not is_needed(make_schedule(), make_task())
    # Over REST: nothing counts it.
    assert not is_needed(make_schedule(), run_of("a", tick=None))
