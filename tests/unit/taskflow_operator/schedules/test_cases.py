"""The hardest cases of a schedule, as far as they are decisions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.taskschedule import LastOutcome
from taskflow_operator.schedules.rules.runs import Child, Skipped, Unrun, UnrunReason
from tests.unit.taskflow_operator.schedules.builders import MINUTE, Life, at, make_schedule


def test_case_1_a_time_that_the_clocks_leave_out_runs_at_the_end_of_the_gap() -> None:
    life = Life(make_schedule("30 2 * * *", timeZone="Europe/Berlin", created="2026-03-28T12:00"))
    life.step("2026-03-28 12:00")
    assert life.follow("2026-03-29 12:00") == ["nightly.20260329t010000z"]  # 03:00+02:00


def test_case_2_a_time_that_comes_twice_runs_at_the_first() -> None:
    life = Life(make_schedule("30 2 * * *", timeZone="Europe/Berlin", created="2026-10-24T12:00"))
    life.step("2026-10-24 12:00")
    assert life.follow("2026-10-25 12:00") == ["nightly.20261025t003000z"]  # 02:30+02:00


def test_case_3_an_hourly_line_follows_real_time_in_the_hour_that_comes_twice() -> None:
    life = Life(make_schedule("30 * * * *", timeZone="Europe/Berlin", created="2026-10-25", concurrencyPolicy="Allow"))
    life.step("2026-10-25 00:00")
    assert life.follow("2026-10-25 02:00") == ["nightly.20261025t003000z", "nightly.20261025t013000z"]


def test_case_4_after_three_years_one_run_is_caught_up() -> None:
    life = Life(make_schedule("* * * * *", created="2023-01-01"))
    assert life.step("2026-01-01 00:00") == ["nightly.20260101t000000z"]
    # No more than a thousand ticks were looked at.
    assert life.status.missed == 999


def test_case_5_all_runs_the_newest_up_to_the_limit_oldest_first() -> None:
    life = Life(make_schedule("* * * * *", concurrencyPolicy="Allow", catchUp={"policy": "All", "limit": 5}))
    assert life.step(at("2026-01-01") + 1000 * MINUTE) == [
        f"nightly.20260101t16{minute}00z" for minute in range(36, 41)
    ]
    assert life.status.missed == 995


def test_case_6_an_operator_killed_between_create_and_cursor_is_followed_by_the_same_run() -> None:
    life = Life(make_schedule("0 * * * *"))
    first = life.decide(at("2026-01-01 01:00"))
    again = life.decide(at("2026-01-01 01:10"))
    assert [run.name for run in first.runs] == [run.name for run in again.runs]
    life.create(at("2026-01-01 01:00"))
    seen = life.decide(at("2026-01-01 01:20"))
    assert seen.runs == ()
    assert seen.skipped == ()
    assert seen.status.cursor == at("2026-01-01 01:00")


def test_case_7_a_run_that_the_history_knows_counts_as_done() -> None:
    life = Life(make_schedule("0 * * * *"))
    name = "nightly.20260101t010000z"
    life.tasks[name] = Child(name, at("2026-01-01 01:00"), at("2026-01-01 01:00"), Phase.SUCCEEDED)
    assert life.step("2026-01-01 01:20") == []
    assert life.status.cursor == at("2026-01-01 01:00")


def test_case_8_an_edit_runs_nothing_of_the_time_before_it() -> None:
    life = Life(make_schedule("0 9 * * *", created="2026-01-01T08:00"))
    life.step("2026-01-01 08:00")
    life.edit(schedules=["0 8 * * *"])
    assert life.decide(at("2026-01-01 08:30")).timing_changed
    assert life.step("2026-01-01 08:30") == []
    assert life.follow("2026-01-02 08:00") == ["nightly.20260102t080000z"]


def test_case_9_after_a_suspension_only_the_next_tick_runs() -> None:
    life = Life(make_schedule("* * * * *", suspend=True))
    for minute in range(200):
        assert life.step(at("2026-01-01") + minute * MINUTE) == []
    life.edit(suspend=False)
    assert life.step("2026-01-01 03:20:30") == []
    assert life.follow("2026-01-01 03:21") == ["nightly.20260101t032100z"]
    assert (life.status.skipped, life.status.missed) == (0, 0)


@pytest.mark.parametrize("policy", ["None", "Last", "All"])
def test_case_10_forbid_skips_the_ticks_while_a_run_goes_on_and_makes_up_for_none(policy: str) -> None:
    life = Life(make_schedule("* * * * *", catchUp={"policy": policy}))
    [name] = life.step("2026-01-01 00:01")
    assert life.follow("2026-01-01 00:06") == []
    assert life.status.skipped == 5
    life.end(name)
    assert life.step("2026-01-01 00:06:30") == []
    assert life.follow("2026-01-01 00:07") == ["nightly.20260101t000700z"]


def test_case_11_replace_waits_for_the_end_of_the_run_that_it_cancels() -> None:
    life = Life(make_schedule("* * * * *", concurrencyPolicy="Replace"))
    [old] = life.step("2026-01-01 00:01")
    life.decide(at("2026-01-01 00:02"))
    assert list(life.last.cancel) == [old]
    assert life.step("2026-01-01 00:02") == []
    for second in range(1, 10):
        assert life.step(at("2026-01-01 00:02") + timedelta(seconds=second)) == []
        assert not life.last.cancel
    life.end(old, Phase.CANCELLED)
    assert life.step("2026-01-01 00:02:10") == ["nightly.20260101t000200z"]


def test_case_12_a_clock_put_back_runs_no_tick_again() -> None:
    life = Life(make_schedule("0 * * * *"))
    [name] = life.step("2026-01-01 05:00")
    life.end(name)
    assert life.step("2026-01-01 04:00") == []
    assert life.follow("2026-01-01 06:00") == ["nightly.20260101t060000z"]


def test_case_13_a_schedule_created_again_runs_no_tick_again() -> None:
    life = Life(make_schedule("* * * * *"))
    [name] = life.step("2026-01-01 00:01")
    again = Life(make_schedule("* * * * *", created="2026-01-01T00:00:30"))
    again.tasks[name] = life.tasks[name]
    assert again.step("2026-01-01 00:01:40") == []
    later = Life(make_schedule("* * * * *", created="2026-01-01T00:01:20"))
    assert later.step("2026-01-01 00:01:40") == []


def test_case_14_a_day_that_never_comes_is_stalled() -> None:
    life = Life(make_schedule("0 4 * * *", "0 0 31 2 *"))
    assert life.step("2026-03-01 00:00") == []
    stalled = life.status.condition("Stalled")
    assert stalled is not None
    assert (stalled.status, stalled.reason) == ("True", "InvalidSchedule")
    assert "spec.schedules[1]" in stalled.message
    assert "day-of-month" in stalled.message
    life.edit(schedules=["0 4 * * *"])
    assert life.step("2026-03-01 12:00") == []
    assert life.follow("2026-03-02 04:00") == ["nightly.20260302t040000z"]
    healed = life.status.condition("Stalled")
    assert healed is not None
    assert healed.status == "False"


def test_case_15_a_refused_run_is_tried_again_and_missed_at_its_deadline() -> None:
    life = Life(make_schedule("0 * * * *", startingDeadlineSeconds=300))
    name = "nightly.20260101t010000z"
    life.refuse(name, "2026-01-01 01:01")
    assert life.step("2026-01-01 01:00") == []
    ready = life.status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "CreateRefused")
    assert life.last.wake_at == at("2026-01-01 01:01")
    assert life.status.cursor == at("2026-01-01 00:00")
    assert [run.name for run in life.decide(at("2026-01-01 01:01")).runs] == [name]
    life.refuse(name, "2026-01-01 01:10")
    life.decide(at("2026-01-01 01:06"))
    missed = Skipped(at("2026-01-01 01:00"), Unrun.MISSED, UnrunReason.DEADLINE_EXCEEDED)
    assert life.last.skipped == (missed,)
    assert life.last.status.missed == 1
    assert life.last.status.cursor == at("2026-01-01 01:00")


def test_the_status_tells_of_the_latest_run() -> None:
    life = Life(make_schedule("0 * * * *"))
    [name] = life.step("2026-01-01 01:00")
    assert (life.status.last_task_name, life.status.last_outcome) == (name, LastOutcome.ACTIVE)
    assert (life.status.active, life.status.active_count) == ((name,), 1)
    life.end(name, Phase.FAILED)
    life.step("2026-01-01 01:01")
    assert (life.status.last_outcome, life.status.active_count) == (LastOutcome.FAILED, 0)
    assert life.status.last_schedule_time == at("2026-01-01 01:00")
    assert life.status.next_schedule_times == tuple(at(f"2026-01-01 0{hour}:00") for hour in (2, 3, 4))
