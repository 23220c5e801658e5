"""What a worker may write into its stream, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import MAX_ITEM_RESULT_BYTES
from taskflow_core.domain.event_input import MAX_FIELD_BYTES, Refusal, RefusedEntryError, broken, read_event
from taskflow_core.domain.events import ENDS, OPERATOR_KINDS, Event, EventKind, Failure, Origin, Stream, Success
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_OUTPUTS, MAX_RESULT_BYTES
from tests.builders import NOW_MS, TOKEN_KEY, UID, make_event

WORKERS, OPERATOR = Stream("team-a", Origin.WORKERS), Stream("team-a", Origin.OPERATOR)
PREFIX = f"team-a/{UID}/2/"
SNAPSHOT = {
    "namespace": "team-a",
    "name": "report",
    "created": "2026-03-01T12:00:00Z",
    "spec": {"handler": "h"},
    "phase": "Queued",
}
PAYLOADS: dict[EventKind, dict[str, Any]] = {
    EventKind.PROGRESS: {"progress": {"done": 1}},
    EventKind.SUCCEEDED: {"result": 3, "runMs": 20},
    **{kind: {"reason": "HandlerError", "message": "no"} for kind in ENDS - {EventKind.SUCCEEDED}},
    **dict.fromkeys(OPERATOR_KINDS, SNAPSHOT),
}
SAID_BY_WORKERS = sorted(set(EventKind) - OPERATOR_KINDS)


def token(att: str = "2", *, namespace: str = "team-a", uid: str = UID, key: str = TOKEN_KEY) -> str:
    return naming.attempt_token(key, namespace, uid, *naming.split_place(att))


def entry(kind: EventKind | str = EventKind.STARTED, payload: object = None, att: str = "2", **more: str) -> Any:
    """Fields of an entry with the right token; `payload` is its JSON, or the value."""
    if payload is None:
        payload = PAYLOADS.get(EventKind(kind), {})
    text = payload if isinstance(payload, str) else json.dumps(payload)
    fields = {
        "k": str(kind),
        "uid": UID,
        "att": att,
        "tok": token(att),
        "w": "pod-1:ab12",
        "ts": str(NOW_MS),
        "p": text,
    }
    return fields | more


def read(fields: dict[str, str], stream: Stream = WORKERS) -> Event:
    return read_event(stream, "5-1", fields, TOKEN_KEY)


def refusal(fields: dict[str, str], stream: Stream = WORKERS) -> Refusal:
    with pytest.raises(RefusedEntryError) as raised:
        read(fields, stream)
    # It goes to the log.
    assert len(str(raised.value)) < 600
    str(raised.value).encode()
    return raised.value.reason


def unreadable(fields: dict[str, str]) -> str:
    """Why an end with the right token was read as a failure."""
    event = read(fields)
    assert event.kind is EventKind.FAILED
    failure = Failure.model_validate(event.payload)
    assert (failure.reason, failure.type) == (Reason.HANDLER_ERROR, "UnreadableEvent")
    assert (event.uid, event.id, event.namespace) == (UID, "5-1", "team-a")
    return failure.message


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


# Payloads

DIGITS = "9" * 5000
NO_PAYLOADS = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "a text": '"x"',
    "not UTF-8": "\udcff",
    "a field not in UTF-8": '{"reason": "HandlerError", "message": "\udcff"}',
    "a lone surrogate": r'{"reason": "HandlerError", "message": "\uD83D"}',
    "a name of a lone surrogate": r'{"reason": "HandlerError", "\ude00": 1}',
    "400 levels": "[" * 400 + "]" * 400,
    "100,000 levels": "[" * 100_000 + "]" * 100_000,
    "levels without an end": '{"a":' * 40_000,
    "NaN": "NaN",
    "5000 digits": DIGITS,
}


@pytest.mark.parametrize("text", NO_PAYLOADS.values(), ids=NO_PAYLOADS.keys())
@pytest.mark.parametrize("kind", sorted(ENDS))
def test_an_end_with_the_right_token_and_no_payload_is_a_failure(kind: EventKind, text: str) -> None:
    assert unreadable(entry(kind, text)).startswith(f"{kind}: ")


@pytest.mark.parametrize("kind", sorted(ENDS))
def test_an_end_whose_payload_was_too_long_is_a_failure(kind: EventKind) -> None:
    fields = entry(kind)
    del fields["p"]
    assert unreadable(fields) == f"{kind}: the payload is missing or too long"


@pytest.mark.parametrize("text", NO_PAYLOADS.values(), ids=NO_PAYLOADS.keys())
def test_progress_without_a_payload_is_refused(text: str) -> None:
    assert refusal(entry(EventKind.PROGRESS, text)) is Refusal.PAYLOAD


@pytest.mark.parametrize("text", NO_PAYLOADS.values(), ids=NO_PAYLOADS.keys())
def test_what_the_operator_says_without_a_payload_is_refused(text: str) -> None:
    assert refusal(entry(EventKind.SETTLED, text), OPERATOR) is Refusal.PAYLOAD


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (EventKind.FAILED, {}),
        (EventKind.FAILED, {"reason": "OfANewerVersion"}),
        (EventKind.FAILED, {"reason": ["HandlerError"]}),
        (EventKind.FAILED, {"reason": "HandlerError", "message": 3}),
        (EventKind.LOST, PAYLOADS[EventKind.SUCCEEDED]),
        (EventKind.SUCCEEDED, {"runMs": -1}),
        (EventKind.SUCCEEDED, {"runMs": 10**20}),
        (EventKind.SUCCEEDED, f'{{"runMs": {DIGITS}}}'),
        (EventKind.SUCCEEDED, f'{{"runMs": "{DIGITS}"}}'),
        (EventKind.SUCCEEDED, f'{{"result": {DIGITS}}}'),
        (EventKind.SUCCEEDED, {"runMs": "soon"}),
        (EventKind.SUCCEEDED, '{"runMs": NaN}'),
        (EventKind.SUCCEEDED, '{"result": NaN}'),
        (EventKind.SUCCEEDED, '{"result": [-Infinity]}'),
        (EventKind.SUCCEEDED, '{"result": 1e999}'),
        (EventKind.SUCCEEDED, '{"result": {"a": -1e400}}'),
        (EventKind.SUCCEEDED, {"outputs": "all"}),
        (EventKind.SUCCEEDED, {"outputs": [{}]}),
    ],
    ids=str,
)
def test_an_end_with_a_payload_of_another_kind_is_a_failure(kind: EventKind, payload: object) -> None:
    assert unreadable(entry(kind, payload))


@pytest.mark.parametrize(
    "payload",
    [
        {"progress": 3},
        {"progress": {"done": -1}},
        {"progress": {"done": 10**20}},
        {"progress": {"total": 2**53 + 1}},
        {"progress": {"message": 1}},
        {"checkpoint": {"a": 1}},
        '{"progress": {"done": NaN}}',
        f'{{"progress": {{"done": {DIGITS}}}}}',
    ],
    ids=lambda each: str(each)[:60],
)
def test_progress_of_another_shape_is_refused(payload: object) -> None:
    assert refusal(entry(EventKind.PROGRESS, payload)) is Refusal.PAYLOAD


@pytest.mark.parametrize("name", sorted(SNAPSHOT))
def test_a_snapshot_that_lacks_something_is_refused(name: str) -> None:
    payload = {key: value for key, value in SNAPSHOT.items() if key != name}
    assert refusal(entry(EventKind.QUEUED, payload), OPERATOR) is Refusal.PAYLOAD


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_result_as_deep_as_a_worker_of_ours_lets_through_is_read() -> None:
    assert read(entry(EventKind.SUCCEEDED, {"result": deep(50)})).kind is EventKind.SUCCEEDED
    assert "nested too deeply" in unreadable(entry(EventKind.SUCCEEDED, {"result": deep(100)}))


def test_a_result_may_be_as_large_as_a_worker_of_ours_lets_through() -> None:
    for result in (
        "x" * (MAX_RESULT_BYTES - 2),
        "\u00e9" * (MAX_RESULT_BYTES // 2 - 1),
        None,
        10**20,
        "\U0001f600",
        "\x00",
    ):
        assert read(entry(EventKind.SUCCEEDED, {"result": result})).payload == {"result": result}
    for large in ("x" * MAX_RESULT_BYTES, "\u00e9" * (MAX_RESULT_BYTES // 2), [0] * MAX_RESULT_BYTES):
        assert "larger than" in unreadable(entry(EventKind.SUCCEEDED, {"result": large}))


def output(key: str, **more: object) -> dict[str, Any]:
    return {"name": "a", "key": key, "sizeBytes": 1, "sha256": "", "contentType": "text/plain", **more}


def test_outputs_under_the_prefix_of_the_attempt_are_read() -> None:
    outputs = [output(f"{PREFIX}{number}") for number in range(MAX_OUTPUTS)]
    assert read(entry(EventKind.SUCCEEDED, {"outputs": outputs})).payload == {"outputs": outputs}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "..",
        "team-a/secret",
        f"team-a/{UID}/1/a",
        f"team-a/{UID}/22/a",
        f"team-a/{UID}/2",
        f"team-a/another/2/{PREFIX}",
        f"team-b/{UID}/2/a",
        f"/{PREFIX}a",
        f"{PREFIX}../1/a",
        f"{PREFIX}a/../../x",
        f"{PREFIX}..",
        PREFIX.upper() + "a",
    ],
)
def test_an_output_outside_the_prefix_of_its_attempt_is_a_failure(key: str) -> None:
    outputs = [output(f"{PREFIX}good"), output(key)]
    assert "not stored under the prefix" in unreadable(entry(EventKind.SUCCEEDED, {"outputs": outputs}))


@pytest.mark.parametrize(
    "outputs",
    [
        [output(f"{PREFIX}a")] * (MAX_OUTPUTS + 1),
        [output(f"{PREFIX}a", sizeBytes=-1)],
        [output(f"{PREFIX}a", sizeBytes=10**20)],
        [output(f"{PREFIX}a", sizeBytes="many")],
    ],
    ids=["too many", "negative size", "huge size", "no size"],
)
def test_outputs_that_cannot_be_are_a_failure(outputs: object) -> None:
    assert unreadable(entry(EventKind.SUCCEEDED, {"outputs": outputs}))


def test_the_end_of_a_chunk_has_the_payload_of_a_chunk() -> None:
    payload = {"ok": "0-3", "results": [[4, {"a": 1}]], "errors": [{"index": 5, "reason": "HandlerError"}], "ran": 6}
    assert read(entry(EventKind.SUCCEEDED, payload, att="2:0")).payload == payload
    counted = {"total": 5, "source": {"key": "team-a/x", "format": "JSONLines"}}
    assert read(entry(EventKind.SUCCEEDED, counted, att="2:-1")).payload == counted
    assert unreadable(entry(EventKind.SUCCEEDED, {}, att="2:-1"))


@pytest.mark.parametrize(
    "payload",
    [
        {"ok": 3},
        {"results": [[1]]},
        {"results": [["x", 1]]},
        {"results": [[1, "x" * MAX_ITEM_RESULT_BYTES]]},
        {"results": [[1, ["x" * MAX_ITEM_RESULT_BYTES]]]},
        '{"results": [[1, NaN]]}',
        {"errors": [{"index": 1}]},
        {"errors": [{"index": 1, "reason": "OfANewerVersion"}]},
        {"ran": -1},
        {"ran": 10**20},
        {"runMs": 2**53 + 1},
    ],
    ids=lambda each: str(each)[:60],
)
def test_the_end_of_a_chunk_of_another_shape_is_a_failure_of_the_chunk(payload: object) -> None:
    fields = entry(EventKind.SUCCEEDED, payload, att="2:0")
    assert unreadable(fields)
    assert read(fields).chunk == 0


def test_a_broken_end_says_what_was_wrong_and_keeps_its_place() -> None:
    event = make_event(EventKind.SUCCEEDED, id="9-9", attempt=3, result=1)
    failure = broken(event, "x" * 10_000)
    assert (failure.entry, failure.attempt, failure.kind) == (event.entry, 3, EventKind.FAILED)
    assert len(Failure.model_validate(failure.payload).message) <= 1024


# Anything

TEXTS = st.text(alphabet=st.characters() | st.characters(categories=["Cs"]), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
NAMES = ["result", "outputs", "runMs", "reason", "message", "type", "trace", "progress", "checkpoint", "ok", "results"]
NAMES += ["errors", "rest", "ran", "total", "source", *SNAPSHOT]
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON | st.lists(st.tuples(st.integers(), JSON)), max_size=6)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "k": st.sampled_from([*EventKind]).map(str) | TEXTS,
        "uid": st.just(UID) | TEXTS,
        "att": st.sampled_from(["1", "2", "2:0", "2:-1"]) | TEXTS,
        "tok": TEXTS,
        "w": TEXTS,
        "ts": st.integers().map(str) | TEXTS,
        "p": TEXTS | (JSON | OBJECTS).map(json.dumps),
        "x": TEXTS,
    },
)
STREAMS = st.sampled_from([WORKERS, OPERATOR])


@given(fields=FIELDS, stream=STREAMS, signed=st.booleans())
def test_whatever_an_entry_says_it_is_an_event_or_refused(fields: dict[str, str], stream: Stream, signed: bool) -> None:
    if signed and fields.get("att") in ("1", "2", "2:0", "2:-1"):
        fields["tok"] = token(fields["att"])
    try:
        event = read(fields, stream)
    except RefusedEntryError as error:
        str(error).encode()
        return
    assert event.entry.stream == stream
    assert event.kind in ENDS or str(event.kind) == fields["k"]


@given(
    kind=st.sampled_from(SAID_BY_WORKERS),
    payload=OBJECTS,
    att=st.sampled_from(["2", "2:0", "2:-1"]),
    ts=st.integers(0, 10**13 - 1),
)
def test_whatever_a_worker_signs_is_an_event_that_can_be_written_or_refused(
    kind: EventKind, payload: dict[str, Any], att: str, ts: int
) -> None:
    try:
        event = read(entry(kind, payload, att, ts=str(ts)))
    except RefusedEntryError:
        assert kind is EventKind.PROGRESS
        return
    assert kind not in ENDS or event.kind in ENDS
    json.dumps(event.payload, allow_nan=False, ensure_ascii=False).encode()
