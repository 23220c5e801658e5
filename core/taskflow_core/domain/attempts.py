"""What the ledger knows of attempts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from taskflow_core.domain.events import EventKind, TaskSnapshot

AttemptKey = tuple[str, int] | tuple[str, int, int | None]
"""Uid and attempt, and the chunk if it is one of an array."""


class Entry(StrEnum):
    """What the ledger knew of an attempt when it was entered."""

    NEW = "new"
    """It was entered now: publish its message."""
    WAITING = "waiting"
    """It was entered before and nobody has claimed it."""
    TAKEN = "taken"
    """Somebody claimed it, or it is closed."""
    LIMITED = "limited"
    """A limit refuses it for now: it is not in the ledger."""


@dataclass(frozen=True)
class Limited:
    """Why an attempt may not be entered now."""

    reason: str
    """CamelCase, for the Task's condition."""
    message: str
    retry_ms: int
    """When to try again, counted from now."""


@dataclass(frozen=True)
class Entered:
    """Answer to `enqueue`."""

    entry: Entry
    time_ms: int
    """Since when it is in the ledger, by Redis' clock; 0 when it is not in the ledger."""
    limit: Limited | None = None
    """Set when `entry` is `LIMITED`."""


@dataclass(frozen=True)
class State:
    """What Redis knows of an attempt."""

    claim: str
    """Who holds or held it, or the tombstone; empty when nobody ever claimed it, or Redis forgot."""
    leased: bool
    waiting: bool

    @property
    def settled(self) -> bool:
        """Its end stands in the resource and was told to the history."""
        return self.claim in (EventKind.SETTLED, EventKind.DELETED)


@dataclass(frozen=True)
class Attempt:
    """One attempt, with the Task as the history should show it."""

    uid: str
    attempt: int
    snapshot: TaskSnapshot
