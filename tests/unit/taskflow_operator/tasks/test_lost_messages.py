"""Which messages are taken for lost, and how often everything is listed."""

from __future__ import annotations

import json

import pytest

from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.message import HEADER_ENTERED
from taskflow_operator.tasks.reconciler import lost_messages, pause_after


def raw(entered: int) -> str:
    return json.dumps({"body": "", "headers": {HEADER_ENTERED: entered}})


A, B, C, D = (AttemptKey("team-a", uid, 1) for uid in "abcd")
FOREIGN = json.dumps({"body": "", "headers": {}})


@pytest.mark.parametrize(
    ("head", "lost"),
    [
        (None, True),
        (raw(1001), True),
        (raw(1000), False),
        (raw(999), False),
        (FOREIGN, False),
        ("no json", False),
    ],
    ids=["empty list", "begins later", "is it or as old", "begins earlier", "not ours", "no message"],
)
def test_a_message_is_lost_when_its_list_is_past_it(head: str | None, lost: bool) -> None:
    assert lost_messages([(A, 1000)], {A: "q"}, {"q": head}) == ([A] if lost else [])


def test_each_member_is_held_against_its_own_list() -> None:
    waiting = [(A, 10), (B, 20), (C, 30), (D, 40)]
    lists = {A: "x", B: "x", C: "y", D: "z"}
    assert lost_messages(waiting, lists, {"x": raw(20), "y": None, "z": raw(1)}) == [A, C]


def test_a_member_of_a_task_that_is_not_open_is_left_alone() -> None:
    assert lost_messages([(A, 10)], {}, {}) == []


@pytest.mark.parametrize(
    ("resync", "took", "pause"),
    [(60, 0.1, 60), (60, 3, 60), (60, 5, 100), (60, 30, 300), (600, 30, 600), (5, 0, 5), (5, 30, 25)],
)
def test_a_list_that_takes_long_is_made_less_often(resync: float, took: float, pause: float) -> None:
    assert pause_after(resync, took) == pause
