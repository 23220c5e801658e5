"""Entries of the streams, with everything right but what a test is about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskflow_core.domain import naming
from taskflow_core.domain.event_input import Refusal, RefusedEntryError, read_event
from taskflow_core.domain.events import ENDS, OPERATOR_KINDS, Event, EventKind, Failure, Origin, Stream
from taskflow_core.domain.phases import Reason
from tests.builders import NOW_MS, TOKEN_KEY, UID

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
    EventKind.AGAIN: {"seconds": 60, "checkpoint": "[1]", "message": "not ready"},
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
