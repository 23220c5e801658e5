from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from taskflow_core.domain.events import Origin, Stream
from taskflow_core.ledger.stream import AHEAD_MS, GROUPS, MAX_STREAM_BYTES, Standing, standing, stream_key
from tests.builders import NOW_MS

PLACE = Stream("team-a", Origin.WORKERS)


def stand(**fields: Any) -> Standing:
    """A group that has read all of a stream of ten entries, unless said otherwise."""
    last = f"{NOW_MS}-0"
    answer = {
        "length": 10,
        "added": 10,
        "last": last,
        "first": f"{NOW_MS - 9000}-0",
        "delivered": last,
        "pending": 0,
        "oldest": "",
        "lag": 0,
        "unread": "",
        "bytes": 0,
    }
    assert set(fields) <= set(answer)
    return standing(PLACE, list((answer | fields).values()), NOW_MS)


def at(ago_ms: int, number: int = 0) -> str:
    return f"{NOW_MS - ago_ms}-{number}"


def test_a_group_that_has_read_everything_is_not_behind() -> None:
    assert stand() == Standing(PLACE)


def test_what_was_read_and_not_acknowledged_is_pending_and_as_old_as_its_first() -> None:
    assert stand(pending=3, oldest=at(4000)) == Standing(PLACE, pending=3, age_ms=4000)


def test_what_is_unread_is_as_old_as_the_first_of_it() -> None:
    assert stand(delivered=at(5000), lag=4, unread=at(3000)) == Standing(PLACE, unread=4, age_ms=3000)
    both = stand(delivered=at(5000), lag=4, unread=at(3000), pending=1, oldest=at(7000))
    assert (both.pending, both.unread, both.age_ms) == (1, 4, 7000)


def test_a_count_that_redis_lost_says_that_there_is_at_least_one() -> None:
    assert stand(delivered=at(5000), lag=0, unread=at(3000)).unread == 1
    assert stand(lag=7).unread == 0


def test_an_entry_of_this_moment_has_no_negative_age() -> None:
    assert stand(delivered=at(5000), lag=1, unread=at(-500)).age_ms == 0


@pytest.mark.parametrize(
    ("fields", "gap"),
    [
        ({}, False),
        ({"added": 100}, False),
        ({"added": 100, "delivered": at(10_000), "unread": at(9000)}, True),
        ({"added": 100, "delivered": at(9000), "unread": at(8000)}, False),
        ({"added": 100, "first": at(9000, 5), "delivered": at(9000, 4)}, True),
        ({"added": 100, "first": at(9000, 10), "delivered": at(9000, 9)}, True),
        ({"added": 100, "length": 0, "first": "", "delivered": at(10_000)}, True),
        ({"added": 100, "length": 0, "first": ""}, False),
        ({"delivered": "0-0", "unread": at(9000)}, False),
    ],
    ids=[
        "nothing trimmed",
        "what was trimmed was read",
        "what was trimmed was unread",
        "trimmed up to what was read last",
        "the next may be among what was trimmed",
        "ids are numbers, not texts",
        "all was trimmed unread",
        "all was trimmed and read",
        "nothing read yet and nothing trimmed",
    ],
)
def test_a_stream_that_was_trimmed_past_what_was_read_has_a_gap(fields: dict[str, Any], gap: bool) -> None:
    assert stand(**fields).gap is gap


def test_an_id_far_in_the_future_is_a_problem_and_one_of_a_fast_clock_is_not() -> None:
    assert stand(last=at(-AHEAD_MS), delivered=at(-AHEAD_MS)).problem == ""
    assert "in the future" in stand(last=at(-AHEAD_MS - 1)).problem
    assert "in the future" in stand(last=f"{2**64 - 1}-{2**64 - 1}").problem


def test_a_stream_that_takes_too_much_memory_is_a_problem() -> None:
    assert stand(bytes=MAX_STREAM_BYTES).problem == ""
    assert stand(bytes=MAX_STREAM_BYTES + 1).problem.startswith("it takes ")


def test_a_stream_without_its_group_or_of_another_type_is_a_problem() -> None:
    assert standing(PLACE, [], NOW_MS).problem == "its consumer group is gone"
    error = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert standing(PLACE, error, NOW_MS).problem == f"it cannot be read: {error}"


def test_the_two_streams_of_a_namespace_have_keys_of_their_own_and_the_history_reads_both() -> None:
    keys = {stream_key(Stream(name, origin)) for name in ("a", "b") for origin in Origin}
    assert keys == {"tf:{a}:ev", "tf:{a}:op", "tf:{b}:ev", "tf:{b}:op"}
    assert set(GROUPS["pg"]) == set(Origin)
    assert GROUPS["cr"] == (Origin.WORKERS,)
