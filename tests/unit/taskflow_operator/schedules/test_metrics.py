from __future__ import annotations

from datetime import datetime
from typing import Any

from taskflow_operator.schedules.known import KnownSchedules
from taskflow_operator.schedules.metrics import MOST, ScheduleMetrics
from tests.builders import NOW
from tests.unit.taskflow_operator.fakes import at
from tests.unit.taskflow_operator.schedules.objects import make_schedule


def text(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def collected(*schedules: dict[str, Any], now: datetime = NOW) -> dict[str, dict[tuple[str, ...], float]]:
    known = KnownSchedules()
    for number, fields in enumerate(schedules):
        known.add(make_schedule(**{"uid": str(number), "name": f"s-{number}", **fields}))
    families = ScheduleMetrics(known, lambda: now).collect()
    return {
        family.name.removeprefix("taskflow_schedule_"): {
            tuple(sample.labels.values()): sample.value for sample in family.samples
        }
        for family in families
    }


def due(second: float) -> dict[str, Any]:
    return {"status": {"nextScheduleTime": text(at(second))}}


def test_each_namespace_has_its_earliest_tick() -> None:
    found = collected(due(60), due(30), {**due(90), "namespace": "team-b"}, {})
    assert found["next_timestamp_seconds"] == {("team-a",): at(30).timestamp(), ("team-b",): at(90).timestamp()}
    assert found["late_seconds"] == found["stalled"] == {}


def test_a_schedule_is_late_beyond_some_seconds_and_its_jitter() -> None:
    found = collected(due(-10), due(-11), {**due(-30), "jitterSeconds": 30}, {**due(-600), "suspend": True})
    assert found["late_seconds"] == {("team-a", "s-1"): 11}


def test_a_run_that_is_refused_is_late_although_the_next_tick_is_not() -> None:
    known = KnownSchedules()
    known.add(make_schedule(**due(60))).overdue["nightly.x"] = at(-20)
    _, late, _ = ScheduleMetrics(known, lambda: NOW).collect()
    assert [sample.value for sample in late.samples] == [20]


def test_a_stalled_schedule_is_stalled_and_not_late() -> None:
    condition = {
        "type": "Stalled",
        "status": "True",
        "reason": "InvalidSchedule",
        "message": "",
        "lastTransitionTime": text(NOW),
    }
    found = collected({"status": {"nextScheduleTime": text(at(-600)), "conditions": [condition]}}, due(30))
    assert found["stalled"] == {("team-a", "s-0", "InvalidSchedule"): 1}
    assert found["late_seconds"] == {}


def test_of_very_many_late_schedules_the_latest_have_series() -> None:
    found = collected(*(due(-100 - number) for number in range(MOST + 5)))
    assert len(found["late_seconds"]) == MOST
    assert min(found["late_seconds"].values()) == 105
