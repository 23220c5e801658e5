"""Arrays in the Task resource: what their items are, and how far they are."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from taskflow_core.domain.resource import Model

MAX_ARRAY_ITEMS = 10_000_000
MAX_FAILED_CHARS = 1024
"""Of the failed indices that the status shows."""


class ItemsFormat(StrEnum):
    """How the items of an array lie in their object."""

    JSON_LINES = "JSONLines"
    """One JSON value a line; empty lines are none."""
    CSV = "CSV"
    """RFC 4180 with a header; an item is an object of strings by the header's names."""


class ItemsFrom(Model):
    """The object that has an array's items."""

    key: str
    """Key below the namespace's prefix in the bucket."""
    format: ItemsFormat = ItemsFormat.JSON_LINES
    delimiter: str | None = Field(default=None, pattern=r'^[^"\r\n]$')
    """Between the fields of CSV; a comma if not said."""


class ArraySpec(Model):
    """Makes a Task stand for many items, each of which is given to the handler. Exactly one of the first three is
    set.
    """

    count: int | None = Field(default=None, ge=1, le=MAX_ARRAY_ITEMS)
    """So many items, which are their own indices, from 0."""
    items: tuple[Any, ...] | None = None
    items_from: ItemsFrom | None = None
    indexes: str | None = None
    """Only these, as ranges such as `3,7-9`; all if not said."""
    failed_of: str | None = None
    """Uid of an array of the same namespace that has ended: only the items that failed there."""
    parallelism: int | None = Field(default=None, ge=1, le=10_000)
    """Chunks handed out at a time; if not said, twice the slots of the workers of its queue."""
    max_failures: int | None = Field(default=None, ge=0, le=MAX_ARRAY_ITEMS)
    """More failed items than this end the Task; if not said, all items are run first, and any failed one fails the
    Task."""


class ArrayStatus(Model):
    """How far an array is. What each item came to is in the history."""

    items: str = ""
    """For printing: ended and all items, such as `730/1000`; with the failed ones if there are any."""
    total: int | None = Field(default=None, ge=0)
    """None until the items of an object are counted."""
    succeeded: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    """Those that will not be run again."""
    running: int = Field(default=0, ge=0)
    """Items of the chunks that workers hold."""
    retried: int = Field(default=0, ge=0)
    """Ended items that took more than one attempt."""
    chunk_items: int = Field(default=0, ge=0)
    """Items that a chunk has at the moment, as measured."""
    failed_indexes: str = ""
    """As ranges; of too many only the first, and then it ends with `,...`."""
