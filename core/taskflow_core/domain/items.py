"""How items of an array ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.ranges import RangeSet


class ItemState(StrEnum):
    """How an item of an array ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class ItemRow:
    """Neighbouring items that ended alike. An item with a result or an error has a row of its own."""

    first: int
    last: int
    state: ItemState
    attempts: int
    result: Any = None
    reason: Reason | None = None
    error_type: str = ""
    message: str = ""


@dataclass(frozen=True)
class ItemHistory:
    """What the history has of an array."""

    ended: RangeSet = field(default_factory=RangeSet)
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    """Items that took more than one attempt, succeeded or failed."""
    failed_first: RangeSet = field(default_factory=RangeSet)
    """The smallest failed indices, at most some hundreds of ranges."""
