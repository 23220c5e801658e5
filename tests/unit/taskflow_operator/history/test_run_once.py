from __future__ import annotations

from datetime import datetime, timedelta

from taskflow_operator.history.run_once import SLICE, RunPruner
from tests.builders import NOW


class Runs:
    def __init__(self, old: int) -> None:
        self.old = old
        self.asked: list[datetime] = []

    async def prune_runs(self, unused_since: datetime, limit: int) -> int:
        self.asked.append(unused_since)
        gone = min(self.old, limit)
        self.old -= gone
        return gone


async def test_old_runs_are_forgotten_in_slices() -> None:
    runs = Runs(SLICE + 1)
    await RunPruner(runs, 30, now=lambda: NOW).prune()
    assert runs.old == 0
    assert set(runs.asked) == {NOW - timedelta(days=30)}
