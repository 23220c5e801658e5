"""Maps byte ranges and line counts of a log to the chunks in which the object store keeps it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from taskflow_core.blobs.store import ObjectInfo

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one chunk."""

    key: str
    start: int
    length: int


class Unsatisfiable(ValueError):  # noqa: N818 - named after HTTP 416
    """The log has no byte in the range."""


def size(chunks: Sequence[ObjectInfo]) -> int:
    """The length of the log in bytes."""
    return sum(chunk.size for chunk in chunks)


def pieces(chunks: Sequence[ObjectInfo], first: int, end: int) -> list[Piece]:
    """The pieces to read for the bytes first <= n < end."""
    found: list[Piece] = []
    offset = 0
    for chunk in chunks:
        start, stop = max(first - offset, 0), min(end - offset, chunk.size)
        if start < stop:
            found.append(Piece(chunk.key, start, stop - start))
        offset += chunk.size
    return found


def byte_range(header: str | None, total: int) -> tuple[int, int] | None:
    """The first byte and the exclusive end of a Range header; None to send everything (RFC 9110, section 14.2).

    Multiple ranges and other units are ignored.

    Raises:
        Unsatisfiable: the log has no byte in the range.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        length = int(found[2])
        if not length or not total:
            raise Unsatisfiable
        return max(total - length, 0), total
    first = int(found[1])
    if found[2] and int(found[2]) < first:
        return None
    if first >= total:
        raise Unsatisfiable
    return first, min(int(found[2]) + 1, total) if found[2] else total


def tail_start(content: bytes, lines: int) -> tuple[int, int]:
    """The offset of the last `lines` lines of the content, and how many of them it has."""
    offset, found = len(content), 0
    if content.endswith(b"\n"):
        offset -= 1
    while found < lines:
        offset = content.rfind(b"\n", 0, max(offset, 0))
        found += 1
        if offset < 0:
            return 0, found
    return offset + 1, found
