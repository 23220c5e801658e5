from __future__ import annotations

import pytest

from taskflow_core.domain.events import ENDS, OPERATOR_KINDS, SEQUENCE, EntryId, EventKind, Origin, Stream
from tests.builders import make_event


def test_every_kind_has_a_place_in_its_attempt() -> None:
    assert set(SEQUENCE) == set(EventKind)
    ends = {SEQUENCE[kind] for kind in ENDS}
    assert len(ends) == 1
    assert SEQUENCE[EventKind.PENDING] < SEQUENCE[EventKind.QUEUED] < SEQUENCE[EventKind.STARTED] < ends.pop()
    assert SEQUENCE[EventKind.SETTLED] > SEQUENCE[EventKind.SUCCEEDED]


def test_what_was_refused_never_moves_an_attempt() -> None:
    assert SEQUENCE[EventKind.DUPLICATE] < SEQUENCE[EventKind.PENDING]
    assert SEQUENCE[EventKind.STALE] < SEQUENCE[EventKind.PENDING]


def test_no_end_is_the_operators_to_say() -> None:
    assert ENDS.isdisjoint(OPERATOR_KINDS)


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_names_its_entry_among_all_streams(kind: EventKind) -> None:
    origin = Origin.OPERATOR if kind in OPERATOR_KINDS else Origin.WORKERS
    assert make_event(kind, id="5-1").entry == EntryId(Stream("team-a", origin), "5-1")


def test_entries_of_two_streams_differ_even_with_the_same_id() -> None:
    entries = {
        make_event(kind, namespace=namespace).entry
        for kind in (EventKind.STARTED, EventKind.QUEUED)
        for namespace in ("team-a", "team-b")
    }
    assert len({str(entry) for entry in entries}) == len(entries) == 4
