"""What the chaos suite finds wrong with ticks of schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.chaos.ticks import Ticked, TickRun, expected, lost, strangers, twice

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def ticked(cursor: float | None = 35, *, missed: int = 0, offset: int = 3, created: float = 3) -> Ticked:
    return Ticked("s", offset, at(created), None if cursor is None else at(cursor), missed)


def run(second: float, uid: str = "") -> TickRun:
    return TickRun("s", at(second), uid or str(second))


def test_ticks_are_those_after_the_creation_and_up_to_the_cursor() -> None:
    assert expected(ticked(), 10) == [at(13), at(23), at(33)]
    assert expected(ticked(33, created=2), 10) == [at(3), at(13), at(23), at(33)]
    assert expected(ticked(None), 10) == []


def test_a_tick_that_two_tasks_ran_for_ran_twice_and_two_attempts_of_one_are_none() -> None:
    assert twice([run(13, "a"), run(13, "a"), run(23, "b")]) == []
    assert twice([run(13, "a"), run(13, "b")]) == [("s", at(13))]


def test_a_tick_is_lost_unless_it_was_counted_as_missed() -> None:
    runs = [run(13), run(33)]
    assert list(lost([ticked()], runs, 10)) == [("s", 1)]
    assert list(lost([ticked(missed=1)], runs, 10)) == []
    assert list(lost([ticked()], [*runs, run(23)], 10)) == []


def test_what_ran_beyond_the_cursor_or_between_two_ticks_is_no_tick() -> None:
    runs = [run(13), run(14), run(43)]
    assert strangers([ticked()], runs, 10, at(50)) == [("s", at(14)), ("s", at(43))]


def test_a_clock_that_was_ahead_lets_ticks_run_before_their_time() -> None:
    assert strangers([ticked()], [run(43), run(44)], 10, at(40)) == [("s", at(44))]


def test_the_latest_run_may_be_beyond_the_cursor_of_a_suspended_schedule() -> None:
    suspended = Ticked("s", 3, at(3), at(35), 0, last=at(43))
    assert strangers([suspended], [run(33), run(43), run(53)], 10, at(60)) == [("s", at(53))]
