"""Items of an array that come from an object: one worker counts them, then chunks read the blocks they need."""

from __future__ import annotations

import csv
import io
import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

from taskflow_core.blobs.store import ObjectInfo
from taskflow_core.domain import naming
from taskflow_core.domain.array import MAX_ARRAY_ITEMS, ItemsFormat
from taskflow_core.domain.chunks import Counted, Source
from taskflow_core.domain.events import Failure
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.errors import Conflict, NotFound
from taskflow_worker.attempts.execution import Objects, run_guarded
from taskflow_worker.attempts.retrying import retry_while_unavailable
from taskflow_worker.attempts.scratch import Scratch
from taskflow_worker.sdk.failures import AttemptFailed

MAX_RECORD_BYTES = 1024 * 1024
"""Largest size of one item. Larger data belongs in its own object."""
BLOCK_ITEMS, BLOCK_BYTES = 10_000, 1024 * 1024
"""A block is the unit of reading. A new block starts after this many items or bytes."""
MAX_LINES = 2 * MAX_ARRAY_ITEMS
"""Lines of an object, with the empty ones, which are no items: reading them takes time too."""
CACHED_BLOCKS = 4
_OFFSETS = "items.json"
_BLOCKS, _LINES = "marks", "lines"
"""Keys in the offsets object: the list of (first item, first byte) of each block, and of its first line."""
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""Byte order marks of UTF-16 and UTF-32."""


class ItemObjects(Objects, Protocol):
    """What arrays need from the object store in addition."""

    def head(self, key: str) -> ObjectInfo:
        """The object's metadata."""

    def stream(self, key: str) -> Iterator[bytes]:
        """Fetch an object in pieces."""

    def get_bytes(self, key: str) -> bytes:
        """Fetch a small object."""

    def get_range(self, key: str, start: int, length: int, etag: str) -> bytes:
        """Fetch a range of bytes. Raises Conflict if the object's ETag differs."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for an item that cannot be read."""

    problem: str


def count_items(message: Message, source: Source, objects: ItemObjects, *, patience: float) -> Counted | Failure:
    """Count the items of an object and store the offsets of its blocks. Never raises: errors become a `Failure`."""

    def work(scratch: Scratch) -> Counted:
        try:
            info, offsets = retry_while_unavailable(
                lambda: _count(source, objects), what=f"items {source.key}", seconds=patience
            )
        except NotFound as error:
            raise AttemptFailed(
                Reason.INPUT_MISSING,
                f"array.itemsFrom: there is no object {source.key!r}; upload it, or correct the key, and create a "
                "new Task",
            ) from error
        key = naming.attempt_prefix(message.namespace, message.uid, message.attempt) + _OFFSETS
        path = scratch.folder() / _OFFSETS
        path.write_text(json.dumps(offsets))
        put = partial(objects.put_file, key, path, "application/json")
        retry_while_unavailable(put, what=f"offsets {key}", seconds=patience)
        total: int = offsets["total"]
        return Counted(total=total, source=source.model_copy(update={"etag": info.etag, "offsets": key}))

    return run_guarded(message, work)


def _count(source: Source, objects: ItemObjects) -> tuple[ObjectInfo, dict[str, Any]]:
    info = objects.head(source.key)
    blocks: list[tuple[int, int]] = []
    lines: list[int] = []
    header, total, size = "", 0, 0
    for number, record in enumerate(records(objects.stream(source.key), source)):
        size = record.start + len(record.content)
        if number >= MAX_LINES:
            raise _invalid(source, f"it has more than {MAX_LINES} lines; remove the empty ones")
        _check_text(source, record)
        if source.format is ItemsFormat.CSV and not header:
            header = _header(source, record)
            continue
        # Empty lines make blocks too, which nobody reads: else those between two items would be read with the first.
        if not blocks or total - blocks[-1][0] >= BLOCK_ITEMS or record.start - blocks[-1][1] >= BLOCK_BYTES:
            blocks.append((total, record.start))
            lines.append(record.line)
        if not record.content.strip():
            continue
        total += 1
        if total > MAX_ARRAY_ITEMS:
            raise _invalid(
                source, f"it has more than {MAX_ARRAY_ITEMS} items; split them into several objects and Tasks"
            )
    return info, {"total": total, "header": header, "size": size, _BLOCKS: blocks, _LINES: lines}


def _check_text(source: Source, record: Record) -> None:
    """What would make a whole file other items than it has, or none.

    Raises:
        AttemptFailed: the text is UTF-16 or UTF-32, or its lines end with a carriage return alone.
    """
    content = record.content
    if record.start == 0 and (content.startswith(_WIDE_MARKS) or b"\x00" in content):
        raise _invalid(source, "line 1: the text is UTF-16 or UTF-32, expected UTF-8; convert it, for example by iconv")
    body = content.removesuffix(b"\n").removesuffix(b"\r")
    if b"\r" not in body:
        return
    # Within quotes a row of CSV may have any character.
    parts = body.split(b'"') if source.format is ItemsFormat.CSV else [body]
    if any(b"\r" in outside for outside in parts[::2]):
        raise _invalid(source, f"line {record.line}: a carriage return ends it alone; end lines with LF or CRLF")


@dataclass(frozen=True, slots=True)
class Record:
    """A line of an object, or a row of CSV, which may span lines within quotes."""

    start: int
    """Its first byte."""
    line: int
    """Its first line."""
    content: bytes
    """With the end of the line."""


def records(pieces: Iterable[bytes], source: Source, first_line: int = 1) -> Iterator[Record]:
    """The records of an object, or of a part of it that begins with this line.

    Raises:
        AttemptFailed: a record is longer than 1 MiB, also for what `_check_text` refuses, or a quote stays open.
    """
    start, line, kept = 0, first_line, b""
    # Lines of the record that have been looked at: bytes, number, and whether a quote is open behind them.
    seen, inner, quoted = 0, 0, False
    for piece in pieces:
        buffer = kept + piece
        begin, end = 0, seen
        while (found := buffer.find(b"\n", end)) >= 0:
            # Quotes within quotes are doubled, so a complete row has an even number of quotes.
            if source.format is ItemsFormat.CSV and buffer.count(b'"', end, found) % 2:
                quoted = not quoted
            end = found + 1
            inner += 1
            if quoted:
                continue
            yield Record(start + begin, line, buffer[begin:end])
            begin, line, inner = end, line + inner, 0
        kept = buffer[begin:]
        start, seen = start + begin, end - begin
        if len(kept) > MAX_RECORD_BYTES:
            # It may be so long because its lines end otherwise.
            _check_text(source, Record(start, line, kept))
            why = "; is there a quote that is never closed?" if quoted else ""
            raise _invalid(source, f"line {line}: the item is longer than {MAX_RECORD_BYTES} bytes{why}")
    if kept:
        if source.format is ItemsFormat.CSV and quoted != bool(kept.count(b'"', seen) % 2):
            raise _invalid(
                source, f"line {line}: the row opens a quote that is never closed; write a quote within a field twice"
            )
        yield Record(start, line, kept)


class ItemReader:
    """Reads the items of chunks and caches blocks, because consecutive chunks share them. One per runner."""

    def __init__(self) -> None:
        self._offsets: tuple[str, dict[str, Any]] = ("", {})
        self._blocks: dict[tuple[str, int], list[Record]] = {}

    def read(self, source: Source, indices: RangeSet, objects: ItemObjects, *, patience: float) -> Iterator[Any]:
        """The items with these indices, in order. `Unreadable` stands for invalid JSON and rows of the wrong length.

        Raises:
            AttemptFailed: the object changed after it was counted, or does not exist any more.
            TaskflowError: the object store is unavailable.
        """
        if self._offsets[0] != source.offsets:
            get = partial(objects.get_bytes, source.offsets)
            text = retry_while_unavailable(get, what=f"offsets {source.offsets}", seconds=patience)
            self._offsets = source.offsets, json.loads(text)
        offsets = self._offsets[1]
        firsts = [first for first, _ in offsets[_BLOCKS]]
        header = _row(offsets["header"], source) if offsets["header"] else []
        for index in indices:
            number = bisect_right(firsts, index) - 1
            block = self._block(source, number, objects, patience)
            yield _item(source, block[index - firsts[number]], header)

    def _block(self, source: Source, number: int, objects: ItemObjects, patience: float) -> list[Record]:
        key = source.offsets, number
        block = self._blocks.get(key)
        if block is None:
            offsets = self._offsets[1]
            bounds = [start for _, start in offsets[_BLOCKS]] + [offsets["size"]]
            start, end = list(pairwise(bounds))[number]
            get = partial(objects.get_range, source.key, start, end - start, source.etag)
            try:
                content = retry_while_unavailable(get, what=f"items {source.key}", seconds=patience)
            except (Conflict, NotFound) as error:
                raise _invalid(source, f"{error}; it must not change until the Task has ended") from error
            line = offsets[_LINES][number]
            block = [record for record in records([content], source, line) if record.content.strip()]
            while len(self._blocks) >= CACHED_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[key] = block
        return block


def _item(source: Source, record: Record, header: list[str]) -> Any:
    where = f"line {record.line}"
    try:
        text = _text(record)
        if source.format is ItemsFormat.JSON_LINES:
            return _DECODER.decode(text)
        row = _row(text, source)
    except json.JSONDecodeError as error:
        return Unreadable(f"{where}, column {error.colno}: the item is not JSON: {error.msg}")
    except (ValueError, RecursionError, csv.Error) as error:
        return Unreadable(f"{where}: the item is not {source.format}: {error}")
    if len(row) != len(header):
        return Unreadable(f"{where}: the row has {len(row)} fields, the header {len(header)}")
    return dict(zip(header, row, strict=True))


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number; write null or a string")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is larger than any 64-bit float; write a string")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError(f"the key {_twice(key for key, _ in pairs)!r} occurs twice in an object")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_float, object_pairs_hook=_object)
"""Refuses what Python's decoder takes although JSON has no such value, or loses without a word."""


def _twice(names: Iterable[str]) -> str | None:
    """The first name that occurs again."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _header(source: Source, record: Record) -> str:
    try:
        text = _text(record)
        names = _row(text, source)
    except (ValueError, csv.Error) as error:
        raise _invalid(source, f"line {record.line}: the header is not {source.format}: {error}") from error
    if (name := _twice(names)) is not None:
        raise _invalid(
            source,
            f"line {record.line}: the header names the column {name!r} twice; give each column a name of its own",
        )
    return text


def _row(text: str, source: Source) -> list[str]:
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=source.delimiter), [])


def _text(record: Record) -> str:
    try:
        return record.content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        found = record.content[error.start]
        raise ValueError(f"byte {error.start + 1} of the line is {found:#04x}, which is not UTF-8") from error


def _invalid(source: Source, problem: str) -> AttemptFailed:
    return AttemptFailed(Reason.ITEMS_INVALID, f"array.itemsFrom: {source.key!r}: {problem}")
