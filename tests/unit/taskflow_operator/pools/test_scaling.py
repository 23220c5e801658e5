from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.workerpool import Scaling
from taskflow_operator.pools.scaling import Decision, Demand, ScalingHistory, Why, decide
from tests.builders import NOW

POOL = Scaling(max_replicas=10)


def after(*demands: tuple[float, int], current: int = 0, scaling: Scaling = POOL, concurrency: int = 1) -> Decision:
    """The last decision of those made at these seconds with that many ready; each is carried out."""
    history, decision = ScalingHistory(), None
    for seconds, ready in demands:
        decision = decide(scaling, concurrency, current, Demand(ready=ready), history, NOW + timedelta(seconds=seconds))
        current, history = decision.replicas, decision.history
    assert decision is not None
    return decision


@pytest.mark.parametrize(
    ("demand", "concurrency", "per_replica", "replicas"),
    [
        (Demand(), 1, None, 0),
        (Demand(ready=1), 4, None, 1),
        (Demand(ready=4), 4, None, 1),
        (Demand(ready=5), 4, None, 2),
        (Demand(leased=5), 4, None, 2),
        (Demand(ready=2, leased=2, due_soon=2), 2, None, 3),
        (Demand(ready=50), 1, 10, 5),
        (Demand(ready=1000), 1, None, 10),
    ],
)
def test_a_pool_wants_as_many_pods_as_its_demand_fills(
    demand: Demand, concurrency: int, per_replica: int | None, replicas: int
) -> None:
    scaling = POOL.model_copy(update={"tasks_per_replica": per_replica})
    assert (
        decide(scaling, concurrency, 0, demand, ScalingHistory(idle_since=NOW - timedelta(days=1)), NOW).replicas
        == replicas
    )


def test_up_at_once_and_says_when_the_maximum_holds_it_back() -> None:
    assert (after((0, 3)).replicas, after((0, 3)).reason) == (3, Why.DEMAND)
    assert (after((0, 11)).replicas, after((0, 11)).reason) == (10, Why.AT_MAXIMUM)
    assert after((0, 11), current=10).reason is Why.AT_MAXIMUM


def test_a_limit_spreads_the_way_up_over_decisions() -> None:
    limited = POOL.model_copy(update={"scale_up_limit": 2})
    assert [after(*[(n, 5) for n in range(count)], scaling=limited).replicas for count in (1, 2, 3)] == [2, 4, 5]
    assert after((0, 5), scaling=limited).reason is Why.SCALE_UP_LIMIT


def test_down_to_the_most_that_was_wanted_within_the_delay() -> None:
    assert (after((0, 8), (59, 2)).replicas, after((0, 8), (59, 2)).reason) == (8, Why.SCALE_DOWN_DELAY)
    assert after((0, 8), (30, 5), (61, 2)).replicas == 5
    assert after((0, 8), (30, 5), (90, 2)).replicas == 2
    assert after((0, 8), (30, 8), (61, 2)).replicas == 8


def test_to_none_only_after_a_time_without_any_demand() -> None:
    assert (after((0, 8), (1, 0), (200, 0)).replicas, after((0, 8), (1, 0), (200, 0)).reason) == (1, Why.IDLE_DELAY)
    assert after((0, 8), (1, 0), (300, 0)).replicas == 1
    assert after((0, 8), (1, 0), (301, 0)).replicas == 0
    assert after((0, 8), (1, 0), (299, 1), (302, 0), (500, 0)).replicas == 1


def test_after_a_restart_it_waits_as_long_again() -> None:
    assert after((0, 0), current=4).replicas == 4
    assert after((0, 0), (60, 0), current=4).replicas == 1
    assert after((0, 0), (60, 0), (300, 0), current=4).replicas == 0


def test_a_lower_maximum_holds_at_once() -> None:
    assert after((0, 50), current=20).replicas == 10


def test_the_minimum_stays_whatever_the_demand() -> None:
    small = Scaling(min_replicas=2, max_replicas=5)
    decision = after((0, 9), (100, 0), (1000, 0), scaling=small)
    assert (decision.replicas, decision.reason) == (2, Why.AT_MINIMUM)


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 50)), min_size=1, max_size=40),
    st.integers(0, 3),
    st.integers(3, 12),
)
def test_never_outside_its_bounds_nor_below_what_runs_within_them(
    steps: list[tuple[float, int]], least: int, most: int
) -> None:
    scaling = Scaling(min_replicas=least, max_replicas=most)
    current, history, now = least, ScalingHistory(), NOW
    for seconds, running in steps:
        now += timedelta(seconds=seconds)
        decision = decide(scaling, 1, current, Demand(leased=running), history, now)
        assert least <= decision.replicas <= most
        assert decision.replicas >= min(running, most)
        assert len(decision.history.wanted) <= most + 2
        current, history = decision.replicas, decision.history
