"""Text that comes from user code, made harmless for the terminals and tables in which people read it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_UNSAFE = re.compile(
    # Controls but tab and newline: ESC, BEL and the 8-bit CSI begin escape sequences, CR overwrites a line.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Direction marks, by which a text reads otherwise than it is, and line separators.
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    # Lone surrogates, which no UTF-8 has.
    "\ud800-\udfff]"
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain(text: str) -> str:
    """The text with U+FFFD for what could control a terminal, reorder its line or not be encoded."""
    return _UNSAFE.sub(_REPLACEMENT, text.replace("\r\n", "\n"))


PlainText = Annotated[str, AfterValidator(plain)]
"""A text that a worker or handler chose. It becomes plain where it is read, before it reaches status, Events, history
or logs."""
