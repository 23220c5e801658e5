"""Items of an array that come from an object: one worker counts them, then chunks read the blocks they need."""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

from taskflow_core.blobs.store import ObjectInfo
from taskflow_core.domain import naming
from taskflow_core.domain.chunks import Counted, Source
from taskflow_core.domain.events import Failure
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import MAX_ARRAY_ITEMS, ItemsFormat
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
_BLOCKS = "marks"
"""Key of the list of (first item, first byte) of each block in the offsets object."""


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
    header, total, size = "", 0, 0
    for lines, (start, record) in enumerate(records(objects.stream(source.key), source.format)):
        size = start + len(record)
        if lines >= MAX_LINES:
            raise _invalid(source, f"it has more than {MAX_LINES} lines; remove the empty ones")
        if source.format is ItemsFormat.CSV and not header:
            header = _header(source, record)
            continue
        # Empty lines make blocks too, which nobody reads: else those between two items would be read with the first.
        if not blocks or total - blocks[-1][0] >= BLOCK_ITEMS or start - blocks[-1][1] >= BLOCK_BYTES:
            blocks.append((total, start))
        if not record.strip():
            continue
        total += 1
        if total > MAX_ARRAY_ITEMS:
            raise _invalid(
                source, f"it has more than {MAX_ARRAY_ITEMS} items; split them into several objects and Tasks"
            )
    return info, {"total": total, "header": header, "size": size, _BLOCKS: blocks}


def records(pieces: Iterable[bytes], kind: ItemsFormat) -> Iterator[tuple[int, bytes]]:
    """The records of an object with their offsets in bytes. A record is a line; a CSV row may span lines within quotes.

    Raises:
        AttemptFailed: a record is longer than 1 MiB.
    """
    start, kept = 0, b""
    # Lines of the record that have been looked at, in bytes, and whether a quote is open behind them.
    seen, quoted = 0, False
    for piece in pieces:
        buffer = kept + piece
        begin, end = 0, seen
        while (found := buffer.find(b"\n", end)) >= 0:
            # Quotes within quotes are doubled, so a complete row has an even number of quotes.
            if kind is ItemsFormat.CSV and buffer.count(b'"', end, found) % 2:
                quoted = not quoted
            end = found + 1
            if quoted:
                continue
            yield start + begin, buffer[begin:end]
            begin = end
        kept = buffer[begin:]
        start, seen = start + begin, end - begin
        if len(kept) > MAX_RECORD_BYTES:
            raise AttemptFailed(
                Reason.ITEMS_INVALID,
                f"array.itemsFrom: the item at byte {start} is longer than {MAX_RECORD_BYTES} bytes",
            )
    if kept:
        yield start, kept


class ItemReader:
    """Reads the items of chunks and caches blocks, because consecutive chunks share them. One per runner."""

    def __init__(self) -> None:
        self._offsets: tuple[str, dict[str, Any]] = ("", {})
        self._blocks: dict[tuple[str, int], list[bytes]] = {}

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
        header = next(csv.reader([offsets["header"]]), []) if offsets["header"] else []
        for index in indices:
            number = bisect_right(firsts, index) - 1
            block = self._block(source, number, objects, patience)
            yield _item(source.format, block[index - firsts[number]], header)

    def _block(self, source: Source, number: int, objects: ItemObjects, patience: float) -> list[bytes]:
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
            block = [record for _, record in records([content], source.format) if record.strip()]
            while len(self._blocks) >= CACHED_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[key] = block
        return block


def _item(kind: ItemsFormat, record: bytes, header: list[str]) -> Any:
    try:
        text = _text(record)
        if kind is ItemsFormat.JSON_LINES:
            return json.loads(text)
        (row,) = csv.reader(io.StringIO(text, newline=""))
    except (ValueError, RecursionError, csv.Error) as error:
        return Unreadable(f"the item is not {kind}: {error}")
    if len(row) != len(header):
        return Unreadable(f"the row has {len(row)} fields, the header {len(header)}")
    return dict(zip(header, row, strict=True))


def _header(source: Source, record: bytes) -> str:
    try:
        text = _text(record)
        next(csv.reader([text]), [])
    except (ValueError, csv.Error) as error:
        raise _invalid(source, f"the header is not {source.format}: {error}") from error
    return text


def _text(record: bytes) -> str:
    return record.decode("utf-8-sig").rstrip("\r\n")


def _invalid(source: Source, problem: str) -> AttemptFailed:
    return AttemptFailed(Reason.ITEMS_INVALID, f"array.itemsFrom: {source.key!r}: {problem}")
