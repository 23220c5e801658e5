from __future__ import annotations

from taskflow_core.domain.events import Origin, Stream
from taskflow_core.ledger.lag import Lag, lag_of
from taskflow_core.ledger.stream import Standing


def standing(namespace: str, **fields: int) -> Standing:
    return Standing(Stream(namespace, Origin.WORKERS), **fields)  # type: ignore[arg-type]


def test_a_group_without_streams_is_not_behind() -> None:
    assert lag_of("cr", []) == Lag("cr", 0, 0.0)


def test_a_group_is_as_far_behind_as_in_all_its_streams_and_as_old_as_in_the_oldest() -> None:
    found = [standing("a", pending=2, age_ms=1500), standing("b", unread=3, pending=1, age_ms=9000), standing("c")]
    assert lag_of("pg", found) == Lag("pg", 6, 9.0, 0, 3)


def test_the_age_of_a_stream_with_nothing_to_read_does_not_count() -> None:
    assert lag_of("cr", [standing("a", age_ms=60_000)]) == Lag("cr", 0, 0.0, 0, 1)


def test_a_group_is_late_when_most_namespaces_are_and_not_because_of_one_of_several() -> None:
    late, well = {"unread": 9, "age_ms": 61_000}, {"idle_ms": 1000}
    unused = standing("z", idle_ms=3_600_000)
    for others, general in ((0, True), (1, False), (2, False)):
        found = [standing("a", **late), *(standing(f"b{number}", **well) for number in range(others)), unused]
        lag = lag_of("cr", found)
        assert (lag.seconds, lag.late, lag.others, lag.general) == (61.0, 1, others, general)
    assert lag_of("cr", [standing("a", **late), standing("b", **late), standing("c", **well)]).general
