"""Reads entries of the event streams. What a worker wrote is input: nothing of it is believed before its token is
checked, and nothing is kept that its kind does not allow.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from taskflow_core.domain import naming
from taskflow_core.domain.chunks import COUNT, MAX_ITEM_RESULT_BYTES, ChunkEnd, Counted
from taskflow_core.domain.events import (
    ENDS,
    OPERATOR_KINDS,
    Advance,
    Continuation,
    Event,
    EventKind,
    Failure,
    Origin,
    Stream,
    Success,
    TaskSnapshot,
)
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import MAX_JSON_LEVELS, MAX_MESSAGE_CHARS, MAX_RESULT_BYTES, json_bytes, nested_deeper

MAX_FIELD_BYTES = 256 * 1024
"""A longer field is not even read. The longest of ours is the end of a chunk, with some 64 KiB of results."""
_UID, _PLACE = re.compile(naming.UID), re.compile(naming.PLACE)
_MILLISECONDS = re.compile(r"[0-9]{1,13}")
"""Until the year 2286: nothing that is computed from it leaves the calendar."""
_WORKER = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,253}")
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_PAYLOADS: Mapping[EventKind, type[Model]] = {
    EventKind.PROGRESS: Advance,
    EventKind.FAILED: Failure,
    EventKind.CANCELLED: Failure,
    EventKind.RELEASED: Failure,
    EventKind.AGAIN: Continuation,
    EventKind.LOST: Failure,
    **dict.fromkeys(OPERATOR_KINDS, TaskSnapshot),
}
_LEVELS = MAX_JSON_LEVELS + 10
"""Of a payload: a result, and what is around it."""


class Refusal(StrEnum):
    """Why an entry is no event; label of a metric."""

    FIELDS = "fields"
    """A field is missing, too long, or not what it should be."""
    KIND = "kind"
    """The kind does not exist, or is not for whoever may write this stream."""
    TOKEN = "token"  # noqa: S105 - no secret
    """The token is not that of the attempt."""
    PAYLOAD = "payload"
    """The payload is not what its kind has."""
    TASK = "task"
    """It is about a Task of another namespace."""
    UNEXPECTED = "unexpected"
    """Applying it raised an error that nobody expected."""


class RefusedEntryError(Exception):
    """An entry is no event.

    Args:
        reason: for the metric.
        message: for the log; contains nothing of the entry but what is safe to show.
    """

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_event(stream: Stream, entry_id: str, fields: Mapping[str, str], token_key: str) -> Event:
    """The event of an entry.

    An end whose token is right and whose payload is not is the end of its attempt all the same, since its worker gave
    it up: it is read as a failure.

    Args:
        stream: where it was.
        entry_id: its stream id.
        fields: its fields, without those that were too long. Bytes that are no UTF-8 are lone surrogates.
        token_key: from which the token of each attempt is derived.

    Raises:
        RefusedEntryError: it is none.
    """
    kind = _kind(stream.origin, fields.get("k", ""))
    uid = _field(fields, "uid", _UID)
    attempt, chunk = naming.split_place(_field(fields, "att", _PLACE))
    if stream.origin is Origin.WORKERS:
        token = naming.attempt_token(token_key, stream.namespace, uid, attempt, chunk)
        # Not a comparison of texts: that of a text with other than ASCII characters raises.
        said = fields.get("tok", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(said, token.encode()):
            raise RefusedEntryError(Refusal.TOKEN, f"the token is not that of attempt {attempt} of {uid}")
    event = Event(
        id=entry_id,
        namespace=stream.namespace,
        kind=kind,
        uid=uid,
        attempt=attempt,
        chunk=chunk,
        worker=_field(fields, "w", _WORKER, default=""),
        time_ms=int(_field(fields, "ts", _MILLISECONDS)),
    )
    try:
        payload = _payload(event, fields.get("p"))
    except ValueError as error:
        if kind not in ENDS:
            raise RefusedEntryError(Refusal.PAYLOAD, f"{kind} of {uid}: {_cause(error)}") from None
        return broken(event, _cause(error))
    return event.model_copy(update={"payload": payload})


def broken(event: Event, problem: str) -> Event:
    """An end that cannot be read, as a failure."""
    failure = Failure(
        reason=Reason.HANDLER_ERROR, type="UnreadableEvent", message=f"{event.kind}: {problem}"[:MAX_MESSAGE_CHARS]
    )
    return event.model_copy(
        update={"kind": EventKind.FAILED, "payload": failure.model_dump(mode="json", by_alias=True)}
    )


def _kind(origin: Origin, text: str) -> EventKind:
    try:
        kind = EventKind(text)
    except ValueError:
        raise RefusedEntryError(Refusal.KIND, f"expected a kind of event, found {text[:40]!r}") from None
    if (kind in OPERATOR_KINDS) is not (origin is Origin.OPERATOR):
        raise RefusedEntryError(Refusal.KIND, f"{kind} is not for {origin} to say")
    return kind


def _field(fields: Mapping[str, str], name: str, pattern: re.Pattern[str], default: str | None = None) -> str:
    value = fields.get(name, default)
    if value is None:
        raise RefusedEntryError(Refusal.FIELDS, f"the field {name!r} is missing or too long")
    if not pattern.fullmatch(value):
        raise RefusedEntryError(Refusal.FIELDS, f"field {name!r}: expected {pattern.pattern}, found {value[:80]!r}")
    return value


def _payload(event: Event, text: str | None) -> dict[str, Any]:
    """The payload, when it is what the kind has.

    Raises:
        ValueError: it is not (pydantic's errors are ValueErrors).
    """
    model = _model(event)
    if model is None:
        return {}
    if model is Continuation and event.chunk is not None:
        raise ValueError("a chunk of an array cannot be continued later")
    if text is None:
        raise ValueError("the payload is missing or too long")
    try:
        found = _JSON.decode(text)
    except RecursionError:
        raise ValueError("the payload is nested too deeply") from None
    # To look at each value takes longer than all the rest.
    if text.count("[") + text.count("{") > _LEVELS and nested_deeper(found, _LEVELS):
        raise ValueError("the payload is nested too deeply")
    if _SURROGATE.search(text):
        _check_text(found)
    payload = model.model_validate(found)
    _check_sizes(event, payload)
    # Validated, and so an object: what else is in it would only take memory.
    known = {name for key, field in model.model_fields.items() for name in (key, field.alias)}
    return {name: value for name, value in found.items() if name in known}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return value


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def _model(event: Event) -> type[Model] | None:
    if event.kind is not EventKind.SUCCEEDED:
        return _PAYLOADS.get(event.kind)
    if event.chunk is None:
        return Success
    return Counted if event.chunk == COUNT else ChunkEnd


def _check_sizes(event: Event, payload: Model) -> None:
    """Bounds that a schema cannot say; a worker of ours keeps to them."""
    if isinstance(payload, Success):
        if payload.result is not None and json_bytes(payload.result) > MAX_RESULT_BYTES:
            raise ValueError(f"the result is larger than {MAX_RESULT_BYTES} bytes")
        prefix = naming.attempt_prefix(event.namespace, event.uid, event.attempt)
        for output in payload.outputs:
            if not output.key.startswith(prefix) or ".." in output.key.split("/"):
                raise ValueError("an output is not stored under the prefix of its attempt")
    elif isinstance(payload, ChunkEnd):
        for index, value in payload.results:
            # Most are numbers: those need no look.
            if isinstance(value, str | list | dict) and json_bytes(value) > MAX_ITEM_RESULT_BYTES:
                raise ValueError(f"the result of item {index} is larger than {MAX_ITEM_RESULT_BYTES} bytes")


def _check_text(found: Any) -> None:
    """No serialiser takes a surrogate without its other half."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("the payload contains what is no UTF-8") from None


def _cause(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:200]
    return str(error)[:200]
