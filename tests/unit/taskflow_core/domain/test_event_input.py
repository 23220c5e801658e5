"""What a worker may write into its stream, and what is made of it."""

from __future__ import annotations

import pytest

from taskflow_core.domain import naming
from taskflow_core.domain.event_input import MAX_FIELD_BYTES, Refusal
from taskflow_core.domain.events import OPERATOR_KINDS, EventKind, Origin, Stream, Success
from tests.builders import NOW_MS, TOKEN_KEY, UID
from tests.unit.taskflow_core.domain.entries import (
    OPERATOR,
    PAYLOADS,
    SAID_BY_WORKERS,
    SNAPSHOT,
    WORKERS,
    entry,
    read,
    refusal,
    token,
)


@pytest.mark.parametrize("kind", SAID_BY_WORKERS)
def test_an_entry_of_the_stream_is_read_whole(kind: EventKind) -> None:
    event = read(entry(kind))
    assert (event.id, event.namespace, event.kind, event.uid) == ("5-1", "team-a", kind, UID)
    assert (event.attempt, event.chunk) == (2, None)
    assert (event.worker, event.time_ms) == ("pod-1:ab12", NOW_MS)
    assert event.payload == PAYLOADS.get(kind, {})
    assert event.entry.stream == WORKERS


@pytest.mark.parametrize("kind", sorted(OPERATOR_KINDS))
def test_what_the_operator_says_needs_no_token(kind: EventKind) -> None:
    fields = entry(kind)
    del fields["tok"], fields["w"]
    event = read(fields, OPERATOR)
    assert (event.kind, event.worker, event.payload, event.entry.stream) == (kind, "", SNAPSHOT, OPERATOR)


@pytest.mark.parametrize("kind", [EventKind.STARTED, EventKind.DUPLICATE, EventKind.STALE])
def test_a_kind_without_a_payload_has_none_whatever_is_said(kind: EventKind) -> None:
    assert read(entry(kind, "[" * 1000)).payload == {}
    assert read(entry(kind, {"anything": 1})).payload == {}


@pytest.mark.parametrize("att", ["1", "2:0", "2:7", "2:-1", "999999", "999999:999999999"])
def test_an_attempt_and_its_chunk_are_read(att: str) -> None:
    event = read(entry(att=att))
    assert (event.attempt, event.chunk) == naming.split_place(att)


def test_fields_that_nobody_knows_are_left_out() -> None:
    found = read(entry(EventKind.SUCCEEDED, {"result": 1, "run_ms": 5, "junk": "x" * 10_000}, more="x")).payload
    assert found == {"result": 1, "run_ms": 5}
    assert Success.model_validate(found).run_ms == 5


# Fields


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("k", Refusal.KIND),
        ("uid", Refusal.FIELDS),
        ("att", Refusal.FIELDS),
        ("tok", Refusal.TOKEN),
        ("ts", Refusal.FIELDS),
    ],
)
@pytest.mark.parametrize("kind", SAID_BY_WORKERS)
def test_a_missing_field_refuses_the_entry(kind: EventKind, name: str, reason: Refusal) -> None:
    fields = entry(kind)
    # A field that is too long is left out by the reader, and so is missing.
    del fields[name]
    assert refusal(fields) is reason


def test_nothing_at_all_is_refused() -> None:
    assert refusal({}) is Refusal.KIND
    assert refusal({}, OPERATOR) is Refusal.KIND


def test_a_worker_without_a_name_is_nobody() -> None:
    fields = entry()
    del fields["w"]
    assert read(fields).worker == ""


HOSTILE_TEXTS = [
    "",
    " ",
    "\udcff\udcfe",
    "\x00",
    "a\nb",
    "x" * MAX_FIELD_BYTES,
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "{",
    "%s",
]


@pytest.mark.parametrize("value", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("k", Refusal.KIND),
        ("uid", Refusal.FIELDS),
        ("att", Refusal.FIELDS),
        ("tok", Refusal.TOKEN),
        ("ts", Refusal.FIELDS),
    ],
)
def test_a_text_that_is_no_such_field_refuses_the_entry(name: str, reason: Refusal, value: str) -> None:
    assert refusal(entry() | {name: value}) is reason


@pytest.mark.parametrize(
    "name",
    ["two words", "a\nb", "a\tb", "a\x1bb", "a\x00b", "a\x7fb", "a\x85b", "a\u2028b", "a\udcffb", "x" * 254],
    ids=ascii,
)
def test_a_worker_name_with_what_a_terminal_would_obey_refuses_the_entry(name: str) -> None:
    assert refusal(entry(w=name)) is Refusal.FIELDS
    assert refusal(entry(EventKind.SUCCEEDED, w=name)) is Refusal.FIELDS


@pytest.mark.parametrize("ts", ["-1", "1e3", "1.5", "+1", "soon", "1" * 14, "9" * 5000, "\u0661", "0x1", "1\n"])
def test_a_time_that_is_none_refuses_the_entry(ts: str) -> None:
    assert refusal(entry(ts=ts)) is Refusal.FIELDS


@pytest.mark.parametrize("ts", ["0", "9" * 13])
def test_every_time_that_is_read_is_within_the_calendar(ts: str) -> None:
    assert read(entry(ts=ts)).time_ms == int(ts)


@pytest.mark.parametrize(
    "att",
    [
        "0",
        "-1",
        "1000000",
        "1:",
        "1:1:1",
        "1:-2",
        "1:00",
        "01",
        "1:01",
        "one",
        "1.0",
        "1:x",
        "\u0661",
        "9" * 5000,
        "1\n",
    ],
)
def test_an_attempt_that_is_none_refuses_the_entry(att: str) -> None:
    assert refusal(entry() | {"att": att}) is Refusal.FIELDS


@pytest.mark.parametrize("uid", ["a:1", "a/b", "../x", "x" * 65, "\u00e9", "a\n"])
def test_a_uid_that_is_none_refuses_the_entry(uid: str) -> None:
    fields = entry(uid=uid, tok=naming.attempt_token(TOKEN_KEY, "team-a", uid, 2))
    assert refusal(fields) is Refusal.FIELDS


# Kinds


@pytest.mark.parametrize("kind", sorted(OPERATOR_KINDS))
def test_what_only_the_operator_may_say_is_refused_in_a_workers_stream(kind: EventKind) -> None:
    assert refusal(entry(kind)) is Refusal.KIND


@pytest.mark.parametrize("kind", SAID_BY_WORKERS)
def test_what_only_workers_say_is_refused_in_the_operators_stream(kind: EventKind) -> None:
    assert refusal(entry(kind), OPERATOR) is Refusal.KIND


@pytest.mark.parametrize("kind", ["exploded", "STARTED", "started ", "EventKind.STARTED", "x" * 100_000])
def test_a_kind_that_does_not_exist_is_refused(kind: str) -> None:
    assert refusal(entry() | {"k": kind}) is Refusal.KIND


# Tokens


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "0" * 32,
        token()[:-1],
        token() + "0",
        token().upper(),
        token("1"),
        token("3"),
        token("2:0"),
        token(namespace="team-b"),
        token(uid="another"),
        token(key="another key of an operator......"),
        "\u00e9" * 32,
        "\udcff" * 32,
        "\x00" * 32,
        "x" * MAX_FIELD_BYTES,
    ],
    ids=[
        "empty",
        "zeros",
        "too short",
        "too long",
        "upper case",
        "an older attempt's",
        "a later attempt's",
        "a chunk's",
        "another namespace's",
        "another Task's",
        "another operator's",
        "not ASCII",
        "not UTF-8",
        "NUL",
        "very long",
    ],
)
@pytest.mark.parametrize("kind", SAID_BY_WORKERS)
def test_a_forged_event_is_refused(kind: EventKind, forged: str) -> None:
    assert refusal(entry(kind, tok=forged)) is Refusal.TOKEN


@pytest.mark.parametrize("said", ["2", "2:1", "1:0", "2:-1"])
def test_a_chunk_has_a_token_of_its_own(said: str) -> None:
    assert refusal(entry(att="2:0", tok=token(said))) is Refusal.TOKEN
    assert read(entry(att="2:0")).chunk == 0


def test_the_same_entry_in_another_namespaces_stream_is_forged() -> None:
    assert refusal(entry(), Stream("team-b", Origin.WORKERS)) is Refusal.TOKEN


def test_a_surrogate_is_not_taken_for_the_byte_that_it_stands_for() -> None:
    right = token()
    assert refusal(entry(tok=chr(0xDC00 + ord(right[0])) + right[1:])) is Refusal.TOKEN


def test_no_payload_is_looked_at_before_the_token() -> None:
    assert refusal(entry(EventKind.SUCCEEDED, "[" * 100_000, tok="0" * 32)) is Refusal.TOKEN
