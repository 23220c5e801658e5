from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from taskflow_core.errors import Invalid, Unavailable
from taskflow_core.store.schedules import RunRow, ScheduleRow
from taskflow_operator.schedules import recorder
from taskflow_operator.schedules.recorder import RunRecorder
from taskflow_operator.schedules.rows import created_row, schedule_row
from taskflow_operator.schedules.rules.runs import Run
from tests.builders import NOW
from tests.unit.taskflow_operator.fakes import at, eventually
from tests.unit.taskflow_operator.schedules.objects import make_schedule


class Store:
    def __init__(self) -> None:
        self.down = False
        self.hangs = False
        self.refused: set[str] = set()
        self.schedules: list[str] = []
        self.runs: list[str] = []
        self.deleted: list[str] = []
        self.transactions = 0

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("PostgreSQL: down")

    async def store_schedules(self, rows: Sequence[ScheduleRow]) -> None:
        await self._answer()
        self.transactions += 1
        self.schedules += [row.uid for row in rows]

    async def record_runs(self, runs: Sequence[RunRow]) -> None:
        await self._answer()
        if any(run.task_name in self.refused for run in runs):
            raise Invalid("no such column")
        self.runs += [str(run.task_name) for run in runs]

    async def schedule_deleted(self, uid: str) -> None:
        await self._answer()
        self.deleted.append(uid)


def row(name: str) -> RunRow:
    return created_row(make_schedule(), Run(name, NOW, NOW, None, None), name, at(1))


SCHEDULE = schedule_row(make_schedule())


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[RunRecorder]:
    made = RunRecorder(store)
    job = asyncio.create_task(made.run())
    yield made
    job.cancel()
    await asyncio.wait([job])
    await made.stop()


async def test_runs_are_stored_before_the_schedule_goes_on_many_in_one_transaction() -> None:
    store = Store()
    async with running(store) as made:
        await asyncio.gather(*(made.record(SCHEDULE, [row(str(number))]) for number in range(50)))
        assert len(store.runs) == 50
        assert store.transactions < 5


async def test_while_the_database_is_away_runs_go_on_and_are_stored_later_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.01)
    store = Store()
    store.down = True
    async with running(store) as made:
        for number in range(3):
            await made.record(SCHEDULE, [row(str(number))])
        made.deleted("other")
        assert store.runs == []
        store.down = False
        await eventually(lambda: len(store.runs) == 3 and store.deleted)
        assert store.runs == ["0", "1", "2"]
        assert store.deleted == ["other"]
        await eventually(lambda: not made._kept.is_set())
        await made.record(SCHEDULE, [row("3")])
        assert store.runs[-1] == "3"


async def test_a_database_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PATIENCE_SECONDS", 0.01)
    store = Store()
    store.hangs = True
    made = RunRecorder(store)
    await made.record(SCHEDULE, [row("a")])
    assert [each.task_name for each in made._runs] == ["a"]
    await made.stop()


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.down = True
    made = RunRecorder(store)
    for number in range(0, recorder.KEPT + 100, 100):
        await made.record(SCHEDULE, [row(str(number + each)) for each in range(100)])
    assert len(made._runs) == recorder.KEPT
    assert made._runs[0].task_name == "100"


async def test_a_row_that_the_database_refuses_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.01)
    store = Store()
    store.refused.add("bad")
    async with running(store) as made:
        await made.record(SCHEDULE, [row("bad")])
        store.down = True
        await made.record(SCHEDULE, [row("bad"), row("good")])
        store.down = False
        await eventually(lambda: store.runs == ["good"])
