"""Checks the payload of a Task: what the operator would refuse later, and what Kubernetes would not keep as it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from taskflow_api.http.problems import FieldError, ProblemError, pointer
from taskflow_api.tasks.schemas import TemplateSpecBody
from taskflow_core.domain.task import MAX_JSON_LEVELS, MAX_PAYLOAD_BYTES, nested_deeper, payload_bytes

MAX_ERRORS = 20
_INT64 = range(-(2**63), 2**63)


def check_payload(spec: TemplateSpecBody, path: tuple[str, ...] = ("spec",)) -> None:
    """Reject a payload that the operator would reject later, or that a handler would not get as it was sent.

    Args:
        spec: Of a Task, or of a template of Tasks.
        path: Where it is in the body of the request.

    Raises:
        ProblemError: 413 or 422.
    """
    items = spec.array.items if spec.array is not None else None
    fields = {"args": spec.args, "kwargs": spec.kwargs, "array/items": items}
    for field, value in fields.items():
        if nested_deeper([value], MAX_JSON_LEVELS + 1):
            error = FieldError(
                pointer=pointer((*path, *field.split("/"))), detail=f"nested deeper than {MAX_JSON_LEVELS} levels"
            )
            raise ProblemError(422, "the payload is nested too deep", errors=[error])
    faults = (fault for field, value in fields.items() for fault in not_kept(value, (*path, *field.split("/"))))
    if errors := list(islice(faults, MAX_ERRORS)):
        raise ProblemError(422, "the payload has a value that Kubernetes does not keep as it is", errors=errors)
    # The same size as the operator computes.
    size = payload_bytes(spec.args, spec.kwargs)
    if size > MAX_PAYLOAD_BYTES:
        raise ProblemError(
            413,
            f"args and kwargs are {size} bytes as JSON, the limit is {MAX_PAYLOAD_BYTES}; "
            "upload larger data and name it as an input",
            code="payload-too-large",
        )


def not_kept(value: Any, path: tuple[str, ...]) -> Iterator[FieldError]:
    """Each part of a JSON value that the API server refuses or changes, by the JSON Pointer of its path.

    The API server keeps an integer of 64 bits. Any other number it makes an IEEE 754 double, as most programs do, and
    writes that with the fewest digits. So an integer beyond may come back as another one, but not one that came from
    there.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            if not _is_unicode(key):
                yield FieldError(pointer=pointer(path), detail="a name has half of a surrogate pair; send whole ones")
            else:
                yield from not_kept(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from not_kept(each, (*path, str(index)))
    elif fault := _fault(value):
        yield FieldError(pointer=pointer(path), detail=fault)


def _fault(value: Any) -> str:
    if isinstance(value, str):
        return "" if _is_unicode(value) else "half of a surrogate pair is no character; send whole ones"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a number up to 1.8e308; JSON has no NaN and no Infinity"
    if isinstance(value, int) and value not in _INT64:
        try:
            made = json.dumps(float(value))
        except OverflowError:
            return "expected a number up to 1.8e308"
        if int(Decimal(made)) != value:
            return f"expected an integer of at most 64 bits; Kubernetes would make {made} of it: send it as a string"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
