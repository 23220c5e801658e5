"""What the package needs from others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from taskflow_core.domain.phases import Phase
from taskflow_core.store.schedules import RunRow, ScheduleRow


class PastRuns(Protocol):
    """The history. Methods raise `Unavailable`, also while it may lack what happened before this process began."""

    async def ran(self, namespace: str, names: Collection[str]) -> dict[str, str]:
        """Uids of the Tasks of these names that exist or existed, by name."""

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        """Terminal phase of the latest Task of that name; None if there is none, or it never finished."""


class RunStore(Protocol):
    """The history. Methods raise `Unavailable` and may be repeated."""

    async def store_schedules(self, rows: Sequence[ScheduleRow]) -> None:
        """Store schedules as they stand."""

    async def schedule_deleted(self, uid: str) -> None:
        """Note that a schedule is gone; its runs stay."""

    async def record_runs(self, runs: Sequence[RunRow]) -> None:
        """Store what became of ticks."""
