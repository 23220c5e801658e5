"""How deep a JSON text is nested, found before it is parsed."""

from __future__ import annotations

import re

MAX_LEVELS = 100
"""A payload may have 50 levels (`MAX_JSON_LEVELS`), and is itself within a batch of Tasks."""
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENS = frozenset(b"[{")


def nested_deeper(text: bytes | bytearray, levels: int) -> bool:
    """Whether a JSON text has lists or objects within each other more than that many levels deep. Of what is no JSON,
    whether a parser would have to go so deep to see it.
    """
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    depth = 0
    for byte in _STRINGS.sub(b"", text).translate(None, _NO_BRACKETS):
        depth += 1 if byte in _OPENS else -1
        if depth > levels:
            return True
    return False
