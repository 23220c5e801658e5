"""JSON text of the values that handlers hand over: results and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_jsonable_python

from taskflow_worker.sdk.failures import type_name


def as_json(value: Any) -> str:
    """Encode a value as JSON. What JSON lacks is written as pydantic does: models, dataclasses, dates, enums, sets.

    Raises:
        ValueError: the value has no JSON form. NaN and infinity have none.
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


# Built once: json.dumps builds a new encoder at each call with other than default options.
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain)
