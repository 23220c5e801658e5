from __future__ import annotations

from bench import elsewhere, ours
from bench.rules import long_trace

from taskflow_core.domain.workerpool import Scaling

EAGER = Scaling(max_replicas=4, scale_down_delay_seconds=0, idle_seconds_to_zero=0)


def test_a_pod_is_started_at_once() -> None:
    found = ours.simulate([(10.0, 1.0)], slots=1, scaling=EAGER, start_seconds=2)
    assert 2 <= found.waited[0] <= 3
    assert (found.killed, found.never) == (0, 0)


def test_what_works_stays_while_the_idle_go() -> None:
    # Two pods at first; one of them becomes idle and goes, and the long one is not cut off by a rule without any
    # patience.
    found = ours.simulate([(0.0, 900.0), (0.0, 5.0), (300.0, 5.0)], slots=1, scaling=EAGER, start_seconds=2)
    assert (found.killed, found.lost_seconds, found.never) == (0, 0.0, 0)
    assert found.waited[2] >= 2, "its pod had gone and was started again"


def test_the_long_trace_tells_the_rules_apart() -> None:
    tasks = long_trace(1)
    mine = ours.simulate(tasks, slots=8, scaling=Scaling(max_replicas=10), start_seconds=3)
    other = elsewhere.simulate(tasks, slots=8, most=10, start_seconds=3, seed=1)
    assert (mine.killed, mine.never, len(mine.waited)) == (0, 0, len(tasks))
    assert other.killed > 0
