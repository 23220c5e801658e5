from __future__ import annotations

from datetime import timedelta

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import rfc3339
from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_operator.schedules.rules.runs import Child, RefusalReason, Skipped, Unrun, UnrunReason
from taskflow_operator.schedules.rules.status import shown
from tests.unit.taskflow_operator.schedules.builders import MINUTE, Life, at, make_schedule


def name(time: str) -> str:
    return f"nightly.20260101t{time}z"


def condition(life: Life, kind: str) -> tuple[str, str]:
    found = life.status.condition(kind)
    assert found is not None, kind
    return found.status, found.reason


def test_queue_keeps_the_newest_tick_until_the_run_ends() -> None:
    life = Life(make_schedule("* * * * *", concurrencyPolicy="Queue"))
    [first] = life.step("2026-01-01 00:01")
    assert life.follow("2026-01-01 00:04") == []
    assert life.status.waiting == at("2026-01-01 00:04")
    assert life.status.skipped == 2
    assert not life.last.cancel
    life.end(first)
    assert life.step("2026-01-01 00:04:30") == [name("000400")]
    assert life.status.waiting is None


def test_what_waits_is_missed_at_its_deadline() -> None:
    life = Life(make_schedule("0 * * * *", concurrencyPolicy="Queue", startingDeadlineSeconds=300))
    [first] = life.step("2026-01-01 01:00")
    life.step("2026-01-01 02:00")
    assert life.last.wake_at == at("2026-01-01 02:05:01")
    life.step("2026-01-01 02:05:01")
    assert (life.status.waiting, life.status.missed) == (None, 1)
    life.end(first)
    assert life.step("2026-01-01 02:06") == []


def test_a_suspension_drops_what_waits() -> None:
    life = Life(make_schedule("* * * * *", concurrencyPolicy="Queue"))
    life.step("2026-01-01 00:01")
    life.step("2026-01-01 00:02")
    life.edit(suspend=True)
    assert life.decide(at("2026-01-01 00:02:10")).skipped == (
        Skipped(at("2026-01-01 00:02"), Unrun.SKIPPED, UnrunReason.SUSPENDED),
    )
    life.step("2026-01-01 00:02:10")
    assert (life.status.waiting, life.status.next_schedule_time, life.last.wake_at) == (None, None, None)
    assert condition(life, "Ready") == ("True", "Suspended")
    assert condition(life, "Suspended") == ("True", "Suspended")


def test_a_backlog_is_worked_off_one_after_the_other() -> None:
    life = Life(make_schedule("* * * * *", catchUp={"policy": "All", "limit": 3}))
    assert life.step("2026-01-01 00:10") == [name("000800")]
    assert (life.status.missed, life.status.catching_up_until) == (7, at("2026-01-01 00:10"))
    life.end_all()
    assert life.step("2026-01-01 00:10:20") == [name("000900")]
    # Meanwhile a tick comes due. It waits behind the backlog, and is skipped when the last of that runs.
    assert life.follow("2026-01-01 00:11:10") == []
    life.end_all()
    assert life.step("2026-01-01 00:11:20") == [name("001000")]
    assert (life.status.catching_up_until, life.status.skipped) == (None, 1)
    life.end_all()
    assert life.step("2026-01-01 00:11:30") == []
    assert life.follow("2026-01-01 00:12") == [name("001200")]


def test_a_large_backlog_of_allow_is_created_in_parts() -> None:
    life = Life(make_schedule("* * * * *", concurrencyPolicy="Allow", catchUp={"policy": "All", "limit": 250}))
    now = at("2026-01-01") + 300 * MINUTE
    assert len(life.decide(now).runs) == 100
    assert len(life.step(now)) == 250
    assert (life.status.missed, life.status.cursor, life.status.catching_up_until) == (50, now, None)


def test_none_runs_a_tick_that_is_younger_than_a_minute() -> None:
    life = Life(make_schedule("0 * * * *", catchUp={"policy": "None"}))
    assert life.step("2026-01-01 01:00:59") == [name("010000")]
    life.end_all()
    assert life.step("2026-01-01 02:01:01") == []
    assert life.status.missed == 1


def test_jitter_moves_the_release_alone_and_is_the_same_for_the_same_tick() -> None:
    schedule = make_schedule("0 * * * *", jitterSeconds=600, concurrencyPolicy="Allow")
    offsets = []
    for hour in range(1, 20):
        tick = at("2026-01-01") + timedelta(hours=hour)
        life, twin = Life(schedule), Life(schedule)
        life.step(tick - MINUTE)
        twin.step(tick - 2 * MINUTE)
        released = life.last.wake_at
        assert released is not None
        assert twin.last.wake_at == released
        assert tick <= released <= tick + 10 * MINUTE
        assert life.follow(released.isoformat()) == [name(f"{hour:02d}0000")]
        offsets.append(released - tick)
    assert len(set(offsets)) > 10


def test_jitter_is_not_longer_than_the_gap_to_the_next_tick() -> None:
    life = Life(make_schedule(every={"seconds": 10}, jitterSeconds=3600, concurrencyPolicy="Allow"))
    life.step("2026-01-01 00:00")
    created = life.follow("2026-01-01 00:10")
    assert created == sorted(created)
    assert len(created) >= 59


def test_times_are_passed_when_they_are_asked_for() -> None:
    fields = {"pass": {"previousTime": "since", "nextTime": "until"}}
    life = Life(make_schedule("0 2 * * 1-5", created="2026-01-02T12:00", **fields))
    [run] = life.decide(at("2026-01-05 02:00")).runs
    assert (run.previous, run.tick, run.next) == tuple(at(f"2026-01-{day} 02:00") for day in ("02", "05", "06"))


def ask(schedule: TaskSchedule, token: str) -> TaskSchedule:
    return schedule.model_copy(update={"run_now": token})


def test_a_token_asks_for_a_run_once() -> None:
    life = Life(ask(make_schedule("0 0 1 1 *"), "first"))
    [created] = life.step("2026-01-01 10:00:07")
    assert created.startswith("nightly.run-")
    life.end_all()
    life.tasks.clear()
    assert life.step("2026-01-01 10:01") == []
    life.schedule = ask(life.schedule, "second")
    [other] = life.step("2026-01-01 10:02")
    assert other != created


def test_a_token_runs_also_while_the_schedule_is_suspended() -> None:
    life = Life(ask(make_schedule("* * * * *", suspend=True), "now"))
    assert len(life.step("2026-01-01 10:00:07")) == 1
    assert life.follow("2026-01-02 00:00") == []


@pytest.mark.parametrize(
    ("policy", "at_once", "later"), [("Forbid", 0, 0), ("Allow", 1, 0), ("Replace", 0, 1), ("Queue", 0, 1)]
)
def test_a_run_by_a_token_obeys_the_concurrency_policy(policy: str, at_once: int, later: int) -> None:
    life = Life(make_schedule("0 * * * *", concurrencyPolicy=policy))
    [running] = life.step("2026-01-01 01:00")
    life.schedule = ask(life.schedule, "now")
    life.decide(at("2026-01-01 01:10"))
    assert bool(life.last.cancel) == (policy == "Replace")
    assert len(life.step("2026-01-01 01:10")) == at_once
    life.end(running)
    assert len(life.step("2026-01-01 01:20")) == later
    assert life.status.skipped == (1 if policy == "Forbid" else 0)


def backfill(**fields: object) -> dict[str, object]:
    return {"name": "past", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T06:00:00Z", **fields}


def test_a_backfill_runs_the_ticks_of_its_interval_and_counts_them() -> None:
    life = Life(make_schedule("0 * * * *", created="2026-01-03", backfills=[backfill(parallelism=2)]))
    assert life.step("2026-01-03 00:10") == [name("000000"), name("010000")]
    life.end(name("000000"), Phase.FAILED)
    assert life.step("2026-01-03 00:11") == [name("020000")]
    life.end_all()
    assert life.step("2026-01-03 00:12") == [name("030000"), name("040000")]
    life.end_all()
    assert life.step("2026-01-03 00:13") == [name("050000")]
    [status] = life.status.backfills
    assert (status.created, status.failed, status.complete) == (6, 1, False)
    life.end_all()
    life.step("2026-01-03 00:14")
    assert life.status.backfills[0].complete
    assert life.status.last_task_name == ""
    # The timing of the schedule goes on beside it.
    assert life.follow("2026-01-03 01:00") == ["nightly.20260103t010000z"]


def test_a_backfill_may_begin_with_the_newest_and_leaves_out_what_ran() -> None:
    life = Life(make_schedule("0 * * * *", created="2026-01-03", backfills=[backfill(order="NewestFirst")]))
    done = at("2026-01-01 04:00")
    life.tasks[name("040000")] = Child(name("040000"), done, done, Phase.SUCCEEDED)
    created = []
    for minute in range(10):
        created += life.step(at("2026-01-03 00:10") + minute * MINUTE)
        life.end_all()
    assert created == [name(f"0{hour}0000") for hour in (5, 3, 2, 1, 0)]
    [status] = life.status.backfills
    assert (status.created, status.complete) == (5, True)


def test_a_backfill_leaves_the_ticks_of_the_schedule_to_it() -> None:
    fields = {"backfills": [backfill(to="2027-01-01T00:00:00Z", parallelism=100)]}
    life = Life(make_schedule("0 * * * *", created="2026-01-01T02:30", **fields))
    assert life.step("2026-01-01 02:40") == [name("000000"), name("010000"), name("020000")]
    life.end_all()
    life.step("2026-01-01 02:41")
    assert life.status.backfills[0].complete
    assert life.follow("2026-01-01 03:00") == [name("030000")]


def test_a_backfill_that_dies_between_create_and_status_counts_each_run_once() -> None:
    life = Life(make_schedule("0 * * * *", created="2026-01-03", backfills=[backfill(parallelism=3)]))
    life.decide(at("2026-01-03 00:10"))
    life.create(at("2026-01-03 00:10"))
    life.end(name("000000"), Phase.FAILED)
    life.step("2026-01-03 00:11")
    [status] = life.status.backfills
    assert (status.created, status.failed, len(status.running)) == (4, 1, 3)


def test_a_backfill_waits_while_a_run_is_refused_and_while_the_schedule_is_suspended() -> None:
    life = Life(make_schedule("0 * * * *", created="2026-01-03", backfills=[backfill()]))
    life.refuse(name("000000"), "2026-01-03 00:20", RefusalReason.HISTORY_UNAVAILABLE)
    assert life.step("2026-01-03 00:10") == []
    assert condition(life, "Ready") == ("False", "HistoryUnavailable")
    assert condition(life, "Reconciling")[0] == "True"
    assert life.last.wake_at == at("2026-01-03 00:20")
    life.edit(suspend=True)
    assert life.step("2026-01-03 00:21") == []
    life.edit(suspend=False)
    assert life.step("2026-01-03 00:22") == [name("000000")]
    assert condition(life, "Ready") == ("True", "Scheduled")


def test_a_taken_name_is_told_until_it_is_free() -> None:
    life = Life(make_schedule("0 * * * *"))
    life.refuse(name("010000"), "2026-01-01 01:01", RefusalReason.CHILD_NAME_TAKEN)
    life.step("2026-01-01 01:00")
    assert condition(life, "NameTaken") == ("True", "ChildNameTaken")
    life.step("2026-01-01 01:01")
    assert condition(life, "NameTaken")[0] == "False"


def test_a_schedule_at_its_end_says_so() -> None:
    life = Life(make_schedule("0 * * * *", endTime="2026-01-01T02:00:00Z"))
    assert life.step("2026-01-01 01:00") == [name("010000")]
    assert condition(life, "Ready") == ("True", "Ended")
    assert (life.status.next_schedule_times, life.last.wake_at) == ((), None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"timeZone": "Europe/Berln"}, "UnknownTimeZone"), ({"startTime": "soon"}, "InvalidSchedule")],
)
def test_what_cannot_be_read_is_stalled_and_runs_nothing(fields: dict[str, str], reason: str) -> None:
    body = {
        "metadata": {
            "uid": "u",
            "namespace": "team-a",
            "name": "nightly",
            "creationTimestamp": rfc3339(at("2026-01-01")),
            "annotations": {"taskflow.dev/run-now": "token"},
        },
        "spec": {"schedules": ["* * * * *"], "taskTemplate": {"spec": {}}, **fields},
    }
    life = Life(TaskSchedule.from_object(body))
    assert life.step("2026-01-01 01:00") == []
    assert condition(life, "Stalled") == ("True", reason)
    assert condition(life, "Ready") == ("False", reason)
    assert condition(life, "Reconciling")[0] == "False"
    found = life.status.condition("Stalled")
    assert found is not None
    assert next(iter(fields)) in found.message


def test_an_edit_keeps_what_waits_and_drops_the_backlog() -> None:
    life = Life(make_schedule("* * * * *", catchUp={"policy": "All"}))
    life.step("2026-01-01 00:10")
    life.edit(schedules=["*/5 * * * *"])
    life.end_all()
    assert life.step("2026-01-01 00:10:30") == []
    assert life.follow("2026-01-01 00:15") == [name("001500")]


def test_a_deleted_run_is_told_as_cancelled() -> None:
    life = Life(make_schedule("0 * * * *"))
    [created] = life.step("2026-01-01 01:00")
    del life.tasks[created]
    life.step("2026-01-01 01:10")
    assert (life.status.last_task_name, life.status.last_outcome) == (created, "Cancelled")


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "every 10s"), (5400, "every 1h30m"), (86400, "every 1d"), (31536000, "every 365d")]
)
def test_an_interval_is_printed_as_ages_are(seconds: int, text: str) -> None:
    assert shown(make_schedule(every={"seconds": seconds}).spec) == text
