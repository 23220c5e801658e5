"""A log as one text, of the chunks in which it lies in the object store. Pure."""

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


class Unsatisfiable(ValueError):  # noqa: N818 - HTTP's word
    """No byte of the range exists."""


def size(chunks: Sequence[ObjectInfo]) -> int:
    """Bytes of the log."""
    return sum(chunk.size for chunk in chunks)


def pieces(chunks: Sequence[ObjectInfo], first: int, end: int) -> list[Piece]:
    """What to read for the bytes first <= n < end."""
    found: list[Piece] = []
    place = 0
    for chunk in chunks:
        start, stop = max(first - place, 0), min(end - place, chunk.size)
        if start < stop:
            found.append(Piece(chunk.key, start, stop - start))
        place += chunk.size
    return found


def byte_range(header: str | None, total: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) that a Range header asks for; None if all is to be sent (RFC 9110, section 14.2).

    Several ranges, and what is no range of bytes, are as none.

    Raises:
        Unsatisfiable: nothing of it exists.
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
    """Where the last `lines` lines of the content begin, and how many of them it has."""
    place, found = len(content), 0
    if content.endswith(b"\n"):
        place -= 1
    while found < lines:
        place = content.rfind(b"\n", 0, max(place, 0))
        found += 1
        if place < 0:
            return 0, found
    return place + 1, found
