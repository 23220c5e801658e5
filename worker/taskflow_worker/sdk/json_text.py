"""JSON text of the values that handlers hand over: results and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json

from taskflow_core.domain.task import MAX_CHECKPOINT_BYTES
from taskflow_worker.sdk.failures import type_name


def as_json(value: Any) -> str:
    """Encode a value as JSON. What JSON lacks is written as pydantic does: models, dataclasses, dates, enums, sets.

    Raises:
        ValueError: the value has no JSON form. NaN and infinity have none, nor a dict with keys that are the same as
            strings, such as 1 and "1".
    """
    try:
        text = _ENCODER.encode(value)
        # A lone surrogate has no UTF-8 form.
        text.encode()
        _refuse_equal_keys(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{type_name(value)} has no JSON form: {error}") from error
    return text


def checkpoint_text(value: Any) -> str:
    """Encode a checkpoint.

    Raises:
        ValueError: the value is more than 4 KiB of JSON, or has no JSON form.
    """
    text = as_json(value)
    size = len(text.encode())
    if size > MAX_CHECKPOINT_BYTES:
        raise ValueError(
            f"the checkpoint is {size} bytes of JSON, at most {MAX_CHECKPOINT_BYTES} are kept; "
            "store the data elsewhere and checkpoint its location"
        )
    return text


def _plain(value: Any) -> Any:
    # pydantic would run a generator to its end, and with it the body of a handler that should have returned.
    if isinstance(value, Iterator):
        raise TypeError(f"{type_name(value)} is not a value")
    # By way of the text: only it still has both of two equal keys.
    return json.loads(to_json(value), object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object would have the key {json.dumps(name)} twice")
    return value


def _refuse_equal_keys(value: Any) -> None:
    """JSON has strings for keys: of two that are the same as strings, readers would lose one without a word.

    The value must be free of cycles.
    """
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            if not all(type(key) is str for key in each):
                _refuse_equal_keys_of(each)


def _refuse_equal_keys_of(found: dict[Any, Any]) -> None:
    named: dict[str, Any] = {}
    for key in found:
        # The encoder's own spelling: true, null, 1.0.
        name = _ENCODER.encode({key: None})
        if name in named:
            text = name.removeprefix("{").removesuffix(": null}")
            raise ValueError(f"the keys {named[name]!r} and {key!r} of a dict are both {text} in JSON")
        named[name] = key


# Built once: json.dumps builds a new encoder at each call with other than default options.
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain)
