from __future__ import annotations

from typing import Any

from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.taskschedule import TaskScheduleStatus
from taskflow_operator.runtime.event_recorder import Regarding
from taskflow_operator.schedules.notices import PAUSE_SECONDS, ScheduleNotices
from taskflow_operator.schedules.rules.runs import Skipped, Unrun, UnrunReason
from tests.builders import NOW
from tests.unit.taskflow_operator.fakes import FakeClock, at
from tests.unit.taskflow_operator.schedules.objects import SCHEDULE_UID, make_schedule


class Events:
    def __init__(self) -> None:
        self.posted: list[tuple[str, str]] = []

    def warn(self, about: Regarding, reason: str, note: str, *, action: str) -> None:
        assert about == Regarding("TaskSchedule", "team-a", "nightly", SCHEDULE_UID)
        assert action == "Schedule"
        self.posted.append((reason, note))


class Site:
    def __init__(self) -> None:
        self.events, self.clock = Events(), FakeClock()
        events: Any = self.events
        self.notices = ScheduleNotices(events, self.clock)


def missed(*seconds: float, reason: UnrunReason = UnrunReason.CATCH_UP) -> list[Skipped]:
    return [Skipped(at(each), Unrun.MISSED, reason) for each in seconds]


def skipped(second: float) -> list[Skipped]:
    return [Skipped(at(second), Unrun.SKIPPED, UnrunReason.STILL_RUNNING)]


def test_many_ticks_are_one_event_and_each_reason_has_its_own() -> None:
    site = Site()
    site.notices.did_not_run(make_schedule(), [*missed(0, 120, 60), *skipped(180)])
    assert site.events.posted == [
        ("RunMissed", "3 runs were missed (CatchUp), the latest that of 2026-03-01T12:02:00Z"),
        ("RunSkipped", "1 run was skipped (StillRunning), the latest that of 2026-03-01T12:03:00Z"),
    ]


def test_what_happens_again_and_again_is_counted_and_told_after_a_pause() -> None:
    site = Site()
    for number in range(15):
        site.notices.did_not_run(make_schedule(), skipped(60 * number))
        site.clock.now += 60
    assert [note.partition(" (")[0] for _, note in site.events.posted] == ["1 run was skipped", "10 runs were skipped"]
    site.notices.forget(SCHEDULE_UID)
    site.notices.did_not_run(make_schedule(), skipped(0))
    assert len(site.events.posted) == 3
    assert PAUSE_SECONDS == 600


def status(kind: str, reason: str, *, on: bool) -> TaskScheduleStatus:
    conditions = set_condition((), kind, status=on, reason=reason, message="31 February", generation=1, now=NOW)
    return TaskScheduleStatus(conditions=conditions)


def test_a_schedule_that_can_never_run_is_told_once() -> None:
    site = Site()
    stalled = status("Stalled", "InvalidSchedule", on=True)
    site.notices.status_changed(make_schedule(), stalled)
    site.notices.status_changed(make_schedule(status=stalled.to_object()), stalled)
    assert site.events.posted == [("InvalidSchedule", "31 February")]


def test_what_its_user_wants_is_no_event() -> None:
    site = Site()
    for kind, reason, on in (
        ("Suspended", "Suspended", True),
        ("Stalled", "Scheduled", False),
        ("Ready", "Scheduled", True),
        ("Ready", "Suspended", False),
    ):
        site.notices.status_changed(make_schedule(), status(kind, reason, on=on))
    assert site.events.posted == []
