from __future__ import annotations

from bench.elsewhere import GRACE_SECONDS, POLL_SECONDS, SYNC_SECONDS, simulate


def test_nothing_starts_before_a_poll_and_a_sync_saw_it() -> None:
    found = simulate([(0.0, 1.0)] * 3, slots=1, most=3, start_seconds=2, seed=1)
    assert len(found.waited) == 3
    assert all(2 <= seconds <= POLL_SECONDS + SYNC_SECONDS + 2 for seconds in found.waited)
    assert (found.killed, found.lost_seconds) == (0, 0)


def test_a_pod_that_is_chosen_while_it_works_loses_what_outlasts_its_grace() -> None:
    # The list is empty while the long ones run, so KEDA takes them for no work at all.
    trace = [(0.0, 2000.0)] * 4
    found = simulate(trace, slots=1, most=4, start_seconds=1, seed=3)
    assert found.killed >= 4
    assert found.lost_seconds > 4 * 300
    assert found.never == 4, "cut off again and again"


def test_what_ends_within_its_grace_is_not_lost() -> None:
    trace = [(0.0, SYNC_SECONDS + GRACE_SECONDS)] * 4
    found = simulate(trace, slots=1, most=4, start_seconds=1, seed=3)
    assert (found.killed, found.never) == (0, 0)


def test_the_same_seed_gives_the_same_outcome() -> None:
    trace = [(number * 0.1, 5.0) for number in range(50)]
    assert simulate(trace, slots=2, most=5, start_seconds=2, seed=7) == simulate(
        trace, slots=2, most=5, start_seconds=2, seed=7
    )
