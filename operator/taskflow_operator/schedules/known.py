"""The TaskSchedules that the operator knows, all of which can be rebuilt from the API server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_core.store.schedules import RunRow
from taskflow_operator.schedules.rules.runs import Child, Refusal


@dataclass(frozen=True, slots=True)
class Existing:
    """A Task of a schedule that exists, or that the history knows."""

    child: Child
    uid: str


@dataclass(frozen=True, slots=True)
class Made(Existing):
    """A Task that this process created, or found in the place of one, until the watch of Tasks has shown it."""

    at: float
    """When that was last known (monotonic seconds)."""


@dataclass(slots=True)
class KnownSchedule:
    """A TaskSchedule, as last read, and what is under way for it."""

    schedule: TaskSchedule
    refused: dict[str, Refusal] = field(default_factory=dict)
    """By name, runs that cannot be created at the moment."""
    overdue: dict[str, datetime] = field(default_factory=dict)
    """By name, when runs were to be created that were refused since the cursor moved."""
    tries: dict[str, int] = field(default_factory=dict)
    """By name, how often a run was refused in a row."""
    made: dict[str, Made] = field(default_factory=dict)
    """By name."""
    doubtful: set[str] = field(default_factory=set)
    """Names of runs that this process asked for since the status was written: they may have been created."""
    cancelled: set[str] = field(default_factory=set)
    """Uids of open children that were asked to end."""
    rows: list[RunRow] = field(default_factory=list)
    """For the history, of runs that the next status shows."""
    wake_at: datetime | None = None
    """The time in the work queue."""
    wrote_at: float = float("-inf")
    """When its status was last written (monotonic seconds)."""
    failures: int = 0
    """Passes in a row that failed."""
    stored_generation: int = -1
    """That the history has of it."""

    def written(self, schedule: TaskSchedule, at: float) -> None:
        """Its status was written, so whatever this process asked for is either in it, or refused."""
        self.schedule, self.wrote_at = schedule, at
        for name in self.overdue.keys() - self.refused.keys():
            # It exists, or its deadline is over.
            del self.overdue[name]
            self.tries.pop(name, None)
        self.doubtful.clear()
        self.rows.clear()
        for name, made in list(self.made.items()):
            if not made.child.open:
                del self.made[name]


class KnownSchedules:
    """TaskSchedules by uid."""

    def __init__(self) -> None:
        self._known: dict[str, KnownSchedule] = {}

    def add(self, schedule: TaskSchedule) -> KnownSchedule:
        """Add a schedule that is not known."""
        known = self._known[schedule.uid] = KnownSchedule(schedule)
        return known

    def get(self, uid: str) -> KnownSchedule | None:
        """The schedule of that uid, if it is known."""
        return self._known.get(uid)

    def remove(self, uid: str) -> KnownSchedule | None:
        """Forget a schedule; what was known of it."""
        return self._known.pop(uid, None)

    def namespace_of(self, uid: str) -> str:
        """Namespace of a schedule; empty if it is not known."""
        known = self._known.get(uid)
        return "" if known is None else known.schedule.namespace

    def uids(self) -> set[str]:
        """Of all schedules."""
        return set(self._known)

    def __iter__(self) -> Iterator[KnownSchedule]:
        """A snapshot of all schedules."""
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)
