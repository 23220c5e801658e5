from __future__ import annotations

import pytest

from taskflow_core.domain.events import ENDS, SEQUENCE, Event, EventKind
from tests.builders import UID

GOOD = {"k": "started", "uid": UID, "att": "2", "tok": "t", "w": "pod:1", "ts": "1700000000123", "p": '{"a": 1}'}


def test_an_entry_of_the_stream_is_read_whole() -> None:
    event = Event.from_fields("5-1", GOOD)
    assert (event.id, event.kind, event.uid, event.attempt) == ("5-1", EventKind.STARTED, UID, 2)
    assert (event.token, event.worker, event.time_ms, event.payload) == ("t", "pod:1", 1_700_000_000_123, {"a": 1})
    assert event.order == (2, 2)


def test_what_only_workers_write_may_be_absent() -> None:
    event = Event.from_fields("5-1", {"k": "lost", "uid": UID, "att": "1"})
    assert (event.token, event.worker, event.time_ms, event.payload) == ("", "", 0, {})


@pytest.mark.parametrize("name", ["k", "uid", "att"])
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"stream entry 5-1 has no field '{name}'"):
        Event.from_fields("5-1", {key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": "exploded"},
        {"att": "one"},
        {"att": ""},
        {"ts": "soon"},
        {"p": "{"},
        {"p": "[]"},
        {"p": "3"},
        {"p": "null"},
    ],
)
def test_what_is_no_event_is_a_value_error(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words; that it is this class is the contract
        Event.from_fields("5-1", GOOD | wrong)


def test_every_kind_has_a_place_in_its_attempt() -> None:
    assert set(SEQUENCE) == set(EventKind)
    ends = {SEQUENCE[kind] for kind in ENDS}
    assert len(ends) == 1
    assert SEQUENCE[EventKind.PENDING] < SEQUENCE[EventKind.QUEUED] < SEQUENCE[EventKind.STARTED] < ends.pop()
    assert SEQUENCE[EventKind.SETTLED] > SEQUENCE[EventKind.SUCCEEDED]


def test_what_was_refused_never_moves_an_attempt() -> None:
    assert SEQUENCE[EventKind.DUPLICATE] < SEQUENCE[EventKind.PENDING]
    assert SEQUENCE[EventKind.STALE] < SEQUENCE[EventKind.PENDING]
