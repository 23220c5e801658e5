"""Text of others on a terminal: never a control character, never wider than there is room."""

from __future__ import annotations

import unicodedata

_DIRECTION = {
    "\u202a",
    "\u202b",
    "\u202c",
    "\u202d",
    "\u202e",
    "\u2066",
    "\u2067",
    "\u2068",
    "\u2069",
    "\u200e",
    "\u200f",
}
ELLIPSIS = "…"


def safe(text: str, *, lines: bool = False) -> str:
    """The text with control characters escaped, and those that change the direction of text. Line feeds and tabs stay
    if `lines`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if _harmless(each, lines) else _escaped(each) for each in text)


def _harmless(each: str, lines: bool) -> bool:
    if lines and each in "\n\t":
        return True
    return unicodedata.category(each) not in {"Cc", "Cs", "Zl", "Zp"} and each not in _DIRECTION


def _escaped(each: str) -> str:
    return each.encode("unicode_escape", "surrogatepass").decode()


def width(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def _columns(each: str) -> int:
    if unicodedata.combining(each) or unicodedata.category(each) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(each) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """The text in at most this many columns, with an ellipsis where something is left out."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for each in text:
        used += _columns(each)
        if used > columns - 1:
            break
        kept.append(each)
    return "".join(kept) + ELLIPSIS
