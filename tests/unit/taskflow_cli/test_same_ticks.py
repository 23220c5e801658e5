"""Converted schedules have the ticks of what they were made from: Celery's own crontab, and our calendar."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab

from taskflow_cli.conversion import beat
from taskflow_core.domain.calendar import calendar_of
from taskflow_core.domain.taskschedule import TaskScheduleSpec

NOW = datetime(2026, 2, 27, 12, 34, 56, tzinfo=UTC)
FIELDS: dict[str, list[Any]] = {
    "minute": ["*", 0, "*/15", "5,50", [7, 8], "58-3"],
    "hour": ["*", 3, "*/5", "22-2", [0, 12]],
    "day_of_month": ["*", 1, "*/2", "28-2", "10-12,31"],
    "month_of_year": ["*", 3, "february", "11-2", "*/3"],
    "day_of_week": ["*", 0, "mon-fri", "fri-mon", "sunday,wed", "*/2"],
}


def of_celery(fields: dict[str, Any], count: int) -> list[datetime]:
    """The next ticks, found by asking Celery minute by minute whether all fields fit."""
    schedule = crontab(**fields, app=Celery(set_as_current=False))
    found: list[datetime] = []
    at = NOW.replace(second=0, microsecond=0) + timedelta(minutes=1)
    end = at + timedelta(days=800)
    while len(found) < count and at < end:
        if (
            at.month not in schedule.month_of_year
            or at.day not in schedule.day_of_month
            or at.isoweekday() % 7 not in schedule.day_of_week
        ):
            at = at.replace(hour=0, minute=0) + timedelta(days=1)
        elif at.hour not in schedule.hour:
            at = at.replace(minute=0) + timedelta(hours=1)
        else:
            if at.minute in schedule.minute:
                found.append(at)
            at += timedelta(minutes=1)
    return found


@pytest.mark.parametrize("seed", range(200))
def test_a_crontab_has_the_ticks_of_celery(seed: int) -> None:
    chance = random.Random(seed)
    fields = {name: chance.choice(values) for name, values in FIELDS.items() if chance.random() < 0.6}
    text = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    done = beat.convert(f"beat_schedule = {{'a': {{'task': 'b', 'schedule': crontab({text})}}}}", "app.py")
    if done.errors:
        assert "Celery runs when day_of_month and day_of_week both fit" in done.errors[0]
        return
    spec = TaskScheduleSpec.model_validate(done.schedules[0]["spec"])
    calendar = calendar_of(spec, "default", "a")
    wanted = of_celery(fields, 25)
    assert list(islice(calendar.after(NOW), len(wanted))) == wanted
