"""Messages and events of a chunk: some items of an array, which one process runs one after the other."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from taskflow_core.domain.array import ItemsFormat
from taskflow_core.domain.events import ErrorClasses, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.plain_text import PlainText
from taskflow_core.domain.resource import Count, Model, RunMs

MAX_ITEM_RESULT_BYTES = 1024
"""JSON of an item's result that is kept inline; a larger one becomes an object."""
MAX_END_BYTES = 64 * 1024
"""Approximate size of the results and errors of a chunk. A chunk that has more ends, and the rest of its items is
handed out again."""
MAX_ERROR_CHARS = 512
"""Of an item's error message."""
MAX_ERROR_TYPES = 32
"""Types of error whose classes a chunk tells."""
COUNT = -1
"""First index of the chunk that counts the items of an object."""
LONGEST_SECONDS = 2.0
"""A chunk begins no further item after that time."""


class Source(Model):
    """The object that the items come from."""

    key: str
    """Full key in the bucket."""
    format: ItemsFormat
    delimiter: str = ","
    """Between the fields of CSV."""
    etag: str = ""
    """ETag when they were counted; empty before."""
    offsets: str = ""
    """Full key of the object with the offsets of items."""


class Chunk(Model):
    """The part of a message that only a chunk has."""

    first: int
    """Its least index; with the attempt it names the chunk."""
    items: str
    """Indices as ranges; empty for the chunk that counts the items of an object."""
    values: tuple[Any, ...] | None = None
    """The items, in the order of their indices; None when they are the indices themselves or come from an object."""
    source: Source | None = None


class ItemError(Model):
    """How an item failed."""

    index: int
    reason: Reason
    type: PlainText = ""
    message: PlainText = ""


class ChunkEnd(Model):
    """Payload of `succeeded` of a chunk: all its items, each in exactly one of these."""

    ok: str = ""
    """Ranges that succeeded without a result."""
    results: tuple[tuple[int, Any], ...] = ()
    """(index, result) of those that succeeded with one."""
    errors: tuple[ItemError, ...] = ()
    classes: dict[PlainText, ErrorClasses] = Field(default_factory=dict, max_length=MAX_ERROR_TYPES)
    """Of `errors`, by their type: each type has the same ones. Of a type that is missing, only its name is known."""
    rest: str = ""
    """Ranges that were not begun."""
    ran: Count = 0
    """Items that were run."""
    run_ms: RunMs = 0

    def failure(self, error: ItemError) -> Failure:
        """One of its errors, as that of an attempt."""
        classes = self.classes.get(error.type, ())
        return Failure(reason=error.reason, type=error.type, message=error.message, classes=classes)


class Counted(Model):
    """Payload of `succeeded` of the chunk that counts the items of an object."""

    total: Count
    source: Source
    run_ms: RunMs = 0
