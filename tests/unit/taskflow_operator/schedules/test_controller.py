"""The controller: the order of what it does, and what becomes of each kind of answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.errors import Forbidden, Unavailable
from taskflow_operator.schedules import controller as module
from tests.unit.taskflow_operator.fakes import at, eventually
from tests.unit.taskflow_operator.schedules.site import FIRST, SECOND, Site


async def test_the_task_comes_first_then_the_history_then_the_cursor() -> None:
    site = Site()
    seen: list[tuple[int, int]] = []

    def look(method: str, name: str) -> None:
        if method == "PATCH":
            seen.append((len(site.server.tasks), len(site.past.rows)))

    site.server.refuse = look
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
    assert site.names == [FIRST]
    assert seen == [(0, 0), (1, 1)]
    assert site.server.status["cursor"] == "2026-03-01T12:01:00Z"
    (row,) = site.past.rows
    assert (row.tick, row.task_name, row.task_uid, row.outcome) == (at(60), FIRST, f"uid-of-{FIRST}", "Created")


async def test_a_tick_costs_one_create_and_one_status_write_and_an_idle_schedule_nothing() -> None:
    site = Site()
    async with site.runs():
        await site.at(at(0))
        site.server.asked.clear()
        for second in range(1, 60, 10):
            await site.at(at(second))
        assert site.server.asked == []
        await site.at(at(60))
        assert site.server.asked == [f"POST {FIRST}", "PATCH nightly"]


async def test_6_whoever_follows_an_operator_that_died_before_the_cursor_finds_the_task() -> None:
    site = Site()
    site.server.refuse = lambda method, _name: Unavailable("away") if method == "PATCH" else None
    async with site.runs():
        await site.at(at(60))
    assert site.names == [FIRST]
    assert "cursor" not in site.server.status
    site.past.rows.clear()
    site.server.refuse = lambda _method, _name: None
    site.begin()
    async with site.runs():
        await site.at(at(61))
    assert site.names == [FIRST]
    assert site.server.status["cursor"] == "2026-03-01T12:01:00Z"
    assert [row.task_name for row in site.past.rows] == [FIRST]


async def test_7_a_task_that_the_history_knows_is_not_run_again_and_without_the_history_nothing_is() -> None:
    site = Site()
    site.now = at(61)
    site.past.down = True
    site.begin()
    async with site.runs():
        await site.at(at(62))
        assert (site.names, site.server.condition("Ready")) == ([], ("False", "HistoryUnavailable"))
        # Of later ticks this process knows itself.
        site.past.down, site.past.uids = False, {FIRST: "gone"}
        await site.at(at(70))
        assert site.names == []
        assert site.server.status["cursor"] == "2026-03-01T12:01:00Z"
        assert site.server.condition("Ready")[0] == "True"
        site.past.down = True
        await site.at(at(120))
    assert site.names == [SECOND]


async def test_an_answer_that_got_lost_makes_no_second_task() -> None:
    site = Site()
    lost = [Unavailable("timeout")]
    site.server.after = lambda method, _name: lost.pop() if method == "POST" and lost else None
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        await site.at(at(62))
    assert site.server.asked.count(f"POST {FIRST}") == 2
    assert site.names == [FIRST]
    assert site.server.status["lastTaskName"] == FIRST


async def test_a_task_whose_answer_got_lost_and_that_was_deleted_is_looked_up() -> None:
    site = Site()
    lost = [Unavailable("timeout")]
    site.server.after = lambda method, _name: lost.pop() if method == "POST" and lost else None
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        del site.server.tasks[FIRST]
        site.past.uids[FIRST] = "gone"
        await site.at(at(62))
    assert site.names == []
    assert site.past.asked == [FIRST]
    assert site.server.status["cursor"] == "2026-03-01T12:01:00Z"


async def test_two_operators_make_one_task_and_one_of_them_writes() -> None:
    site = Site()
    async with site.runs():
        await site.at(at(0))
    site.watch()
    # Another one decides on the tick, and its write is not seen here yet.
    other = Site()
    other.server = site.server
    other.past = site.past
    other.begin()
    other.now = at(60)
    async with other.runs():
        await other.at(at(60))
    version = site.server.version
    async with site.runs():
        await site.at(at(60))
        assert site.names == [FIRST]
        assert site.server.version == version
        site.watch()
        await site.at(at(61))
    assert site.names == [FIRST]
    assert site.server.version == version


async def test_13_a_name_that_a_stranger_has_is_tried_again_until_it_is_free() -> None:
    site = Site()
    site.server.tasks[FIRST] = {"metadata": {"name": FIRST}, "spec": {}}
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        assert site.server.condition("NameTaken") == ("True", "ChildNameTaken")
        assert "ChildNameTaken" in site.events.reasons
        del site.server.tasks[FIRST]
        await site.at(at(65))
    assert site.server.tasks[FIRST]["metadata"]["uid"] == f"uid-of-{FIRST}"
    assert site.server.condition("NameTaken")[0] == "False"


async def test_15_a_task_that_is_refused_is_missed_at_the_deadline() -> None:
    site = Site(startingDeadlineSeconds=30)
    site.server.refuse = lambda method, _name: Forbidden("exceeded quota: tasks") if method == "POST" else None
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        assert site.server.condition("Ready") == ("False", "CreateRefused")
        assert "missed" not in {name for name, value in site.server.status.items() if value}
        count = site.server.asked.count(f"POST {FIRST}")
        await site.at(at(60))
        # Not sooner than its pause says.
        assert site.server.asked.count(f"POST {FIRST}") == count
        await site.at(at(70))
        assert site.server.asked.count(f"POST {FIRST}") == count + 1
        await site.at(at(91))
    assert site.server.status["missed"] == 1
    assert [(row.outcome, row.reason) for row in site.past.rows] == [("Missed", "DeadlineExceeded")]
    assert set(site.events.reasons) == {"CreateRefused", "RunMissed"}


async def test_11_replace_asks_the_former_run_to_end_once_and_waits_for_it() -> None:
    site = Site(concurrencyPolicy="Replace")
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        site.show(FIRST)
        await site.at(at(120))
        await site.at(at(125))
        assert site.server.asked.count(f"PATCH {FIRST}") == 1
        assert site.server.tasks[FIRST]["spec"]["cancel"] is True
        assert site.names == [FIRST]
        site.end(FIRST, Phase.CANCELLED)
        await eventually(lambda: site.names == [FIRST, SECOND])
        await eventually(lambda: site.server.status["lastTaskName"] == SECOND)


async def test_the_end_of_a_run_shows_but_not_more_than_once_a_second() -> None:
    site = Site()
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        site.show(FIRST)
        site.monotonic += 60
        site.end(FIRST)
        await eventually(lambda: site.server.status["lastOutcome"] == "Succeeded")
        assert site.server.status["activeCount"] == 0
        await site.at(at(120))
        writes = site.server.asked.count("PATCH nightly")
        site.show(SECOND)
        site.end(SECOND)
        await site.rest()
        assert site.server.asked.count("PATCH nightly") == writes
        await site.at(at(121.5))
        assert site.server.status["lastOutcome"] == "Succeeded"


async def test_a_change_while_a_decision_is_written_is_decided_anew() -> None:
    site = Site()
    async with site.runs():
        await site.at(at(0))
        site.server.edit(suspend=True)
        await site.at(at(60))
        assert "cursor" not in {name for name, value in site.server.status.items() if value == "2026-03-01T12:01:00Z"}
        site.watch()
        await site.at(at(61))
    # It was created before anybody could know.
    assert site.names == [FIRST]
    assert site.server.condition("Suspended")[0] == "True"
    assert site.server.status["observedGeneration"] == 2


async def test_a_task_that_came_and_went_unseen_holds_up_nobody_for_ever() -> None:
    site = Site()
    async with site.runs():
        await site.at(at(0))
        await site.at(at(60))
        del site.server.tasks[FIRST]
        site.monotonic += module.UNSEEN_SECONDS
        await site.at(at(120))
        assert site.names == [SECOND]
        site.monotonic += module.UNSEEN_SECONDS
        await site.at(at(170))
        # This one is still there.
        assert site.server.status["active"] == [SECOND]


async def test_clocks_that_differ_are_a_condition_until_they_agree() -> None:
    site = Site()
    site.skew = -3600.0
    async with site.runs():
        await site.at(at(0))
        assert site.server.condition("ClockSkew") == ("True", "ClocksDiffer")
        writes = site.server.asked.count("PATCH nightly")
        site.skew = -3601.0
        await site.at(at(1))
        assert site.server.asked.count("PATCH nightly") == writes
        site.skew = 0.0
        await site.at(at(2))
        assert site.server.condition("ClockSkew") == ("False", "ClocksAgree")


async def test_a_backfill_waits_until_the_finished_tasks_are_known() -> None:
    begun = {"name": "b", "cursor": "2026-02-01T00:00:00Z", "running": ["2026-02-01T00:00:00Z"]}
    status = {"cursor": "2026-03-01T12:00:00Z", "backfills": [begun]}
    backfill = {"name": "b", "from": "2026-02-01T00:00:00Z", "to": "2026-02-01T00:02:00Z"}
    site = Site(status=status, backfills=[backfill])
    site.listed = False
    async with site.runs():
        await site.at(at(1))
        assert site.server.asked == []
        site.listed = True
        await site.at(at(2))
        assert "POST nightly.20260201t000100z" in site.server.asked
    # Ticks of the past may have run.
    assert site.past.asked == ["nightly.20260201t000100z"]


async def test_one_schedule_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    monkeypatch.setattr(module, "AT_ONCE", 1)

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    async with site.runs():
        with monkeypatch.context() as patched:
            patched.setattr(module, "plan", bug)
            await site.at(at(0))
        site.now = at(60) + timedelta(seconds=60)
        await site.at(at(60))
    assert site.names == [FIRST]


async def test_a_schedule_that_is_being_deleted_runs_nothing() -> None:
    site = Site()
    async with site.runs():
        await site.at(at(0))
        site.server.schedule["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:30Z"
        site.server.change()
        site.watch()
        await site.at(at(60))
        site.observer.observe(site.server.schedule, gone=True)
        await site.at(at(120))
    assert site.names == []
    assert len(site.schedules) == 0
