from __future__ import annotations

import time
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_operator.runtime.fair_queue import FairQueue


def taken(turns: FairQueue) -> list[str]:
    return [turns.take() for _ in range(len(turns))]


@pytest.mark.parametrize(
    ("waiting", "weights", "order"),
    [
        ({"a": 3}, {}, "a0 a1 a2"),
        ({"a": 3, "b": 1}, {}, "a0 b0 a1 a2"),
        ({"a": 3, "b": 2, "c": 1}, {}, "a0 b0 c0 a1 b1 a2"),
        ({"a": 5, "b": 2}, {"a": 2}, "a0 a1 b0 a2 a3 b1 a4"),
        ({"a": 2, "b": 4}, {"a": 3, "b": 2}, "a0 a1 b0 b1 b2 b3"),
    ],
)
def test_flows_take_turns_by_their_weight(waiting: dict[str, int], weights: dict[str, int], order: str) -> None:
    turns = FairQueue(lambda flow: weights.get(flow, 1))
    for flow, count in waiting.items():
        for number in range(count):
            turns.put(flow, f"{flow}{number}")
    assert taken(turns) == order.split()
    assert not turns


def test_who_comes_later_waits_for_one_of_each_other_flow() -> None:
    turns = FairQueue()
    for number in range(10):
        turns.put("a", f"a{number}")
    assert turns.take() == "a0"
    turns.put("b", "b0")
    assert [turns.take(), turns.take()] == ["a1", "b0"]


def test_a_key_keeps_its_place_may_come_first_and_may_be_dropped() -> None:
    turns = FairQueue()
    for key in ("x", "y", "z", "x"):
        turns.put("a", key)
    turns.put("a", "z", first=True)
    turns.drop("a", "y")
    turns.drop("a", "nobody")
    turns.drop("b", "x")
    assert len(turns) == 2
    assert taken(turns) == ["z", "x"]


def test_a_flow_of_which_all_was_dropped_takes_no_turn() -> None:
    turns = FairQueue(lambda _: 2)
    for key in ("a0", "a1", "b0"):
        turns.put(key[0], key)
    assert turns.take() == "a0"
    turns.drop("a", "a1")
    assert taken(turns) == ["b0"]


FLOWS = "abcd"
PUT, DROP, TAKE = "put", "drop", "take"


@given(
    st.lists(st.tuples(st.sampled_from([PUT, PUT, PUT, DROP, TAKE]), st.sampled_from(FLOWS), st.integers(0, 30))),
    st.fixed_dictionaries({flow: st.integers(1, 4) for flow in FLOWS}),
)
def test_nobody_waits_for_more_than_its_share(steps: list[tuple[str, str, int]], weights: dict[str, int]) -> None:
    turns = FairQueue(weights.__getitem__)
    model: dict[str, list[str]] = defaultdict(list)
    waited: dict[str, int] = {}
    bound: dict[str, int] = {}

    def take() -> None:
        key = turns.take()
        # In its own flow it was the first.
        assert model[key[0]].pop(0) == key
        assert waited.pop(key) <= bound.pop(key)
        for other in waited:
            waited[other] += other[0] != key[0]

    for step, flow, number in steps:
        key = f"{flow}{number}"
        if step == PUT and key not in model[flow]:
            ahead = len(model[flow])
            model[flow].append(key)
            turns.put(flow, key)
            rounds = ahead // weights[flow] + 1
            # One round more: that which runs may be over for its flow.
            waited[key], bound[key] = 0, (rounds + 1) * sum(weights[other] for other in FLOWS if other != flow)
        elif step == DROP and key in model[flow]:
            model[flow].remove(key)
            waited.pop(key)
            turns.drop(flow, key)
        elif step == TAKE and turns:
            take()
        assert len(turns) == sum(map(len, model.values()))
    while turns:
        take()


def test_the_thousandth_costs_as_much_as_the_first() -> None:
    """Quadratic, as with the first key of a plain dict, this takes minutes."""
    turns = FairQueue()
    for number in range(200_000):
        turns.put("a", str(number))
    began = time.process_time()
    taken(turns)
    assert time.process_time() - began < 10
