"""The result of a handler as JSON: size and nesting limits, and what of it the Task's status shows."""

from __future__ import annotations

import json
from typing import Any

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import MAX_JSON_LEVELS, nested_deeper
from taskflow_worker.sdk.failures import AttemptFailed, type_name
from taskflow_worker.sdk.json_text import as_json

RESULT_OUTPUT = "result.json"
"""Name of the output that holds a result which is too large for the status."""
MAX_STORED_RESULT_BYTES = 64 * 1024 * 1024


def checked_json(returned: Any, handler: str) -> str:
    """Encode a result of at most 64 MiB.

    Raises:
        AttemptFailed: the result has no JSON form, or is too large even for an object.
    """
    try:
        text = as_json(returned)
    except ValueError as error:
        cause = error.__cause__ or error
        raise AttemptFailed(
            Reason.RESULT_NOT_SERIALISABLE,
            f"{handler} returned {type_name(returned)}, which has no JSON form: {cause}; return JSON or write an "
            "output",
            type_name(cause),
        ) from error
    if (size := len(text.encode())) > MAX_STORED_RESULT_BYTES:
        raise AttemptFailed(
            Reason.RESULT_TOO_LARGE,
            f"{handler} returned {size} bytes of JSON, at most {MAX_STORED_RESULT_BYTES} are stored; write an output",
        )
    return text


def inline(text: str, handler: str) -> Any:
    """The value for the Task's status, decoded from the encoded text: tuples are lists by now, and keys strings.

    Raises:
        AttemptFailed: Kubernetes cannot store the value.
    """
    try:
        value = json.loads(text)
        # Some hundred levels deep, JSON parsers give up.
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
            f"{handler} returned an integer beyond 64 bits, which Kubernetes cannot store; return it as a string",
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
