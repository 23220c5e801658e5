"""What the ledger knows of attempts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from taskflow_core.domain import naming
from taskflow_core.domain.events import EventKind, TaskSnapshot
from taskflow_core.domain.task import Task

RENEWALS_PER_LEASE = 3
"""How often a worker renews a lease in the time that it lasts."""
_MEMBER = re.compile(f"{naming.UID}:{naming.PLACE}")


class AttemptKey(NamedTuple):
    """Names an attempt, and whose it is."""

    namespace: str
    uid: str
    attempt: int
    chunk: int | None = None
    """In an array, the first index of the chunk."""

    @classmethod
    def current(cls, task: Task) -> AttemptKey:
        """The current attempt of a Task."""
        return cls(task.namespace, task.uid, task.status.attempt)

    @property
    def member(self) -> str:
        """Its name in ledger and leases."""
        return naming.member(self.uid, self.attempt, self.chunk)

    @property
    def place(self) -> str:
        """The attempt within its Task."""
        return naming.place(self.attempt, self.chunk)

    @property
    def claim(self) -> str:
        """Redis key of its claim."""
        return naming.keys_of(self.namespace).claim(self.uid, self.attempt, self.chunk)

    @classmethod
    def of(cls, namespace: str, member: str) -> AttemptKey | None:
        """The attempt of a `member`; None if it is the name of none."""
        if not _MEMBER.fullmatch(member):
            return None
        return cls(namespace, *naming.split_member(member))


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
class Held:
    """An attempt that a worker holds."""

    key: AttemptKey
    claim: str
    """Who holds it: worker|runner|nonce."""
    until_ms: int
    """When its lease runs out, by Redis' clock."""
    now_ms: int
    """The time, by that clock."""

    @property
    def worker(self) -> str:
        """The process that holds it: the name of its pod, a colon, and a nonce."""
        return self.claim.partition("|")[0]


@dataclass(frozen=True)
class Attempt:
    """One attempt, with the Task as the history should show it."""

    uid: str
    attempt: int
    snapshot: TaskSnapshot

    @property
    def key(self) -> AttemptKey:
        """Its name."""
        return AttemptKey(self.snapshot.namespace, self.uid, self.attempt)


@dataclass(frozen=True)
class Survey:
    """What a namespace has in flight that needs attention."""

    namespace: str
    now_ms: int = 0
    """Redis' clock."""
    expired: tuple[AttemptKey, ...] = ()
    """Attempts whose lease ran out."""
    nobodys: tuple[str, ...] = ()
    """Likewise, but the names of no attempts."""
    removed: int = 0
    """How many such names were too long to be told; they are removed."""
    waiting: tuple[tuple[AttemptKey, int], ...] = ()
    """Attempts in the ledger and since when, oldest first."""
    problem: str = ""
    """Why the keys cannot be read."""
