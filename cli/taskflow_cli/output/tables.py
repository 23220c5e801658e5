"""Tables of resources: one line each, no wider than the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_cli.output.text import cut, safe, width

Row = Mapping[str, Any]

_GAP = 3
_NARROW_GAP = 2
_LEAST = 8
"""Columns that a shortened cell keeps."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        header: In capitals, as kubectl's.
        cell: The text of a resource at a time.
        wide: Only with `-o wide`.
        shrinks: Shortened if the table is wider than the terminal.
        colour: The ANSI colour of a text, or None.
    """

    header: str
    cell: Callable[[Row, datetime], str]
    wide: bool = False
    shrinks: bool = False
    colour: Callable[[str], int | None] | None = None


@dataclass(frozen=True)
class Screen:
    """What is printed to. A width of 0 means no terminal: nothing is shortened, and there are no colours."""

    width: int = 0
    colour: bool = False


def table(columns: Sequence[Column], rows: Sequence[Row], now: datetime, screen: Screen, *, wide: bool = False) -> str:
    """The table as text, with a header; empty if there are no rows."""
    if not rows:
        return ""
    shown = [column for column in columns if wide or not column.wide]
    cells = [[safe(column.cell(row, now)) for column in shown] for row in rows]
    widths = [max(len(column.header), *(width(line[number]) for line in cells)) for number, column in enumerate(shown)]
    gap = _GAP
    if screen.width:
        widths, gap = _fitted(shown, widths, screen.width)
    lines = [_line(shown, [column.header for column in shown], widths, gap, colour=False)]
    lines += [_line(shown, line, widths, gap, colour=screen.colour) for line in cells]
    return "".join(f"{line}\n" for line in lines)


def _fitted(columns: Sequence[Column], widths: Sequence[int], room: int) -> tuple[list[int], int]:
    """The widths and the gap that fit: the widest of the columns that may shrink gives way first."""
    fitted = list(widths)
    gap = _GAP if sum(widths) + _GAP * (len(widths) - 1) <= room else _NARROW_GAP
    over = sum(widths) + gap * (len(widths) - 1) - room
    may = [number for number, column in enumerate(columns) if column.shrinks]
    while over > 0 and may:
        widest = max(may, key=lambda number: fitted[number])
        if fitted[widest] <= max(_LEAST, len(columns[widest].header)):
            may.remove(widest)
            continue
        fitted[widest] -= 1
        over -= 1
    return fitted, gap


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], gap: int, *, colour: bool) -> str:
    parts = []
    for column, cell, room in zip(columns, cells, widths, strict=True):
        text = cut(cell, room)
        padding = " " * (room - width(text) + gap)
        code = column.colour(cell) if colour and column.colour else None
        parts.append((f"\x1b[{code}m{text}\x1b[0m" if code else text) + padding)
    return "".join(parts).rstrip()
