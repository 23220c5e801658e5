from __future__ import annotations

import pytest

from taskflow_core.kube.server_clock import ServerClock

NOON, DATE = 1_772_366_400.0, "Sun, 01 Mar 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (0, 0),
        # The header leaves out the fraction of a second.
        (0.9, 0),
        (10, 9),
        (-10, -10),
        (3600, 3599),
    ],
)
def test_how_far_the_clocks_are_apart_follows_from_the_date_of_an_answer(ahead: float, told: float) -> None:
    clock = ServerClock()
    assert clock.skew == 0
    clock.note(NOON + ahead, DATE, NOON + ahead)
    assert clock.skew == told


def test_a_slow_answer_is_no_wrong_clock() -> None:
    clock = ServerClock()
    clock.note(NOON - 30, DATE, NOON + 20)
    assert clock.skew == 0


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_an_answer_without_a_date_says_nothing_about_clocks(date: str) -> None:
    clock = ServerClock()
    clock.note(NOON, date, NOON)
    assert clock.skew == 0
