"""Payloads of events: what a worker may say in them, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core.domain.chunks import MAX_ITEM_RESULT_BYTES
from taskflow_core.domain.event_input import Refusal, RefusedEntryError, broken
from taskflow_core.domain.events import ENDS, EventKind, Failure, Stream
from taskflow_core.domain.task import MAX_AGAIN_SECONDS, MAX_CHECKPOINT_BYTES, MAX_OUTPUTS, MAX_RESULT_BYTES
from tests.builders import UID, make_event
from tests.unit.taskflow_core.domain.entries import (
    OPERATOR,
    PAYLOADS,
    PREFIX,
    SAID_BY_WORKERS,
    SNAPSHOT,
    WORKERS,
    entry,
    read,
    refusal,
    token,
    unreadable,
)

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
        (EventKind.AGAIN, {"checkpoint": "[1]"}),
        (EventKind.AGAIN, {"seconds": -1}),
        (EventKind.AGAIN, {"seconds": MAX_AGAIN_SECONDS + 1}),
        (EventKind.AGAIN, {"seconds": 1.5}),
        (EventKind.AGAIN, {"seconds": 1, "checkpoint": "c" * (MAX_CHECKPOINT_BYTES + 1)}),
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


def test_a_chunk_that_asks_to_be_continued_is_a_failure() -> None:
    assert unreadable(entry(EventKind.AGAIN, att="2:100")) == "again: a chunk of an array cannot be continued later"


@pytest.mark.parametrize(
    "payload",
    [
        {"progress": 3},
        {"progress": {"done": -1}},
        {"progress": {"done": 10**20}},
        {"progress": {"total": 2**53 + 1}},
        {"progress": {"message": 1}},
        {"checkpoint": {"a": 1}},
        {"checkpoint": "c" * (MAX_CHECKPOINT_BYTES + 1)},
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
