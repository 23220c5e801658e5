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
    assert lag_of("pg", found) == Lag("pg", 6, 9.0)


def test_the_age_of_a_stream_with_nothing_to_read_does_not_count() -> None:
    assert lag_of("cr", [standing("a", age_ms=60_000)]) == Lag("cr", 0, 0.0)
