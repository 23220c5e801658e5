from __future__ import annotations

import json

import pytest

from taskflow_core.broker.publish import HEADER_ENTERED
from taskflow_operator.reconcile import lost_messages


def raw(entered: int) -> str:
    return json.dumps({"body": "", "headers": {HEADER_ENTERED: entered}})


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
    assert lost_messages([("a:1", 1000)], {"a:1": "q"}, {"q": head}) == (["a:1"] if lost else [])


def test_each_member_is_held_against_its_own_list() -> None:
    waiting = [("a:1", 10), ("b:1", 20), ("c:1", 30), ("d:1", 40)]
    lists = {"a:1": "x", "b:1": "x", "c:1": "y", "d:1": "z"}
    assert lost_messages(waiting, lists, {"x": raw(20), "y": None, "z": raw(1)}) == ["a:1", "c:1"]


def test_a_member_of_a_task_that_is_not_open_is_left_alone() -> None:
    assert lost_messages([("gone:1", 10)], {}, {}) == []
