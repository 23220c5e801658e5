"""What a handler returns, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_jsonable_python

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_JSON_LEVELS, nested_deeper
from taskflow_worker.failures import AttemptFailed, type_name

RESULT_OUTPUT = "result.json"
"""Name of the output in which a result lies that is too large for the resource."""
MAX_STORED_RESULT_BYTES = 64 * 1024 * 1024
"""Nesting of an inline result; beyond some hundreds, JSON parsers give up."""


def as_json(value: Any) -> str:
    """JSON of a value: what JSON has as it is, the rest as pydantic writes it (models, dataclasses, dates, enums, sets ...).

    Raises:
        ValueError: it has no JSON form; NaN and infinity have none.
    """
    try:
        text = _ENCODER.encode(value)
        # A lone surrogate has no UTF-8 form.
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{type_name(value)} has no JSON form: {error}") from error
    return text


def _plain(value: Any) -> Any:
    # pydantic would run a generator to its end, and with it the body of a handler that should have returned.
    if isinstance(value, Iterator):
        raise TypeError(f"{type_name(value)} is not a value")
    return to_jsonable_python(value)


# Made once: json.dumps makes another one at each call that asks for anything but its defaults.
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain)


def checked_json(returned: Any, handler: str) -> str:
    """JSON of a result, of at most 64 MiB.

    Raises:
        AttemptFailed: it has no JSON form, or is too large even for an object.
    """
    try:
        text = as_json(returned)
    except ValueError as error:
        cause = error.__cause__ or error
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned {type_name(returned)}, which has no JSON form: {cause}; return JSON or write an output",
            type_name(cause),
        ) from error
    if (size := len(text.encode())) > MAX_STORED_RESULT_BYTES:
        raise AttemptFailed(
            Reason.RESULT_TOO_LARGE,
            f"{handler} returned {size} bytes of JSON, at most {MAX_STORED_RESULT_BYTES} are stored; write an output",
        )
    return text


def inline(text: str, handler: str) -> Any:
    """The value that travels to the resource: what was measured, with tuples as lists and keys as strings.

    Raises:
        AttemptFailed: Kubernetes cannot keep it.
    """
    try:
        value = json.loads(text)
        deep = nested_deeper(value, MAX_JSON_LEVELS)
    except RecursionError:
        deep = True
    if deep:
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned JSON nested deeper than {MAX_JSON_LEVELS} levels; return less or write an output",
        )
    if _beyond_64_bits(value):
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned an integer beyond 64 bits, which Kubernetes cannot keep; return it as a string",
        )
    return value


def _beyond_64_bits(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(_beyond_64_bits(child) for child in _children(value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
