"""Parses JSON that is nested deeper than Python can parse."""

from __future__ import annotations

import json
from typing import Any

LEVELS = 200
_CLOSES = {ord("["): ord("]"), ord("{"): ord("}")}


def read_json(payload: bytes) -> Any:
    """Parse an answer of the API server, which admits objects nested thousands deep, where Python's parser gives up.

    In such an answer, what is nested deeper than 200 levels is read as null: enough to see that it is too deep.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(payload)
    except RecursionError:
        return json.loads(cut(payload, LEVELS))


def cut(payload: bytes, levels: int) -> bytes:
    """The JSON with every list and object below that many levels replaced by null."""
    kept = bytearray()
    depth, text, escaped = 0, False, False
    for byte in payload:
        opens = not text and byte in _CLOSES
        if opens:
            depth += 1
            if depth == levels + 1:
                kept += b"null"
        if depth <= levels:
            kept.append(byte)
        if text:
            text = escaped or byte != ord('"')
            escaped = not escaped and byte == ord("\\")
        elif byte == ord('"'):
            text = True
        elif byte in _CLOSES.values():
            depth -= 1
    return bytes(kept)
