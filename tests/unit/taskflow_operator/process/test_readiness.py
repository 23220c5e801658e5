from __future__ import annotations

from dataclasses import replace

import pytest

from taskflow_core.ledger.lag import Lag
from taskflow_operator.process.health import Level
from taskflow_operator.process.readiness import OperatorState, check_results

WELL = OperatorState(standby=False, holder="a", started=True, lags=[Lag("cr", 0, 0.0), Lag("pg", 0, 0.0)])


def lacking(state: OperatorState) -> list[str]:
    return [f"{each.name}: {each.message}" for each in check_results(state) if each.level is Level.FAILED]


def test_a_leader_that_has_everything_lacks_nothing() -> None:
    assert lacking(WELL) == []
    assert {each.name for each in check_results(WELL)} >= {"role", "Redis", "API server", "watch"}


def test_a_standby_is_ready_and_says_that_it_stands_by() -> None:
    found = check_results(OperatorState(standby=True, holder="other", redis_age=1000))
    assert lacking(OperatorState(standby=True, holder="other", redis_age=1000)) == []
    assert found[0].message == "standby: other leads"


def test_a_standby_that_does_not_reach_the_api_server_could_not_take_over() -> None:
    assert lacking(OperatorState(standby=True, holder="a", api_server_age=16)) == [
        "API server: has not answered for 16 s"
    ]


def test_one_that_has_not_seen_a_leader_yet_is_not_ready() -> None:
    assert lacking(OperatorState(standby=True, holder="")) == ["role: standby: nobody leads yet"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (replace(WELL, started=False), ["start: has not read all Tasks yet"]),
        (replace(WELL, failing_loops=["dispatch", "history"]), ["loop: dispatch ended", "loop: history ended"]),
        (replace(WELL, redis_age=11), ["Redis: has not answered for 11 s"]),
        (replace(WELL, api_server_age=16), ["API server: has not answered for 16 s"]),
        (replace(WELL, watch_down=91), ["watch: none for 91 s"]),
        (replace(WELL, confirmed=False), ["role: leader in doubt"]),
        (replace(WELL, arrays_wait=61), ["arrays: an array has waited for PostgreSQL for 61 s"]),
        (replace(WELL, arrays_wait=60), []),
        (replace(WELL, lags=[Lag("cr", 7, 61.0, 1, 0)]), ["events to resources: 7 waiting, the oldest for 61 s"]),
        (replace(WELL, redis_age=11, api_server_age=16), ["Redis: has", "API server: has"]),
    ],
)
def test_what_is_lacking_is_said_line_by_line(state: OperatorState, words: list[str]) -> None:
    said = lacking(state)
    assert len(said) == len(words)
    assert all(line.startswith(begin) for line, begin in zip(said, words, strict=True))


@pytest.mark.parametrize(
    "state",
    [
        replace(WELL, lags=[Lag("pg", 900, 3600.0, 1, 0)]),
        replace(WELL, lags=[Lag("cr", 900, 3600.0, 1, 1)]),
        replace(WELL, watch_down=3),
    ],
    ids=["mirror", "one of two namespaces", "watch"],
)
def test_a_late_mirror_and_a_short_gap_of_the_watch_degrade_without_making_unready(state: OperatorState) -> None:
    assert lacking(state) == []
    assert [each.level for each in check_results(state)].count(Level.DEGRADED) == 1
