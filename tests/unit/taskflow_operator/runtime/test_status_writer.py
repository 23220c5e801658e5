from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_operator.runtime import status_writer
from taskflow_operator.runtime.status_writer import IN_FLIGHT, StatusWriter, Written
from tests.builders import NOW, make_task
from tests.unit.taskflow_operator.fakes import FakeApi, FakeClock, Journal, eventually


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_writer, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(status_writer, "RETRY_SECONDS", 0.002)


@asynccontextmanager
async def running(writer: StatusWriter) -> AsyncIterator[None]:
    job = asyncio.create_task(writer.run())
    try:
        yield
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


def in_phase(phase: Phase, uid: str = "u", **fields: object) -> Task:
    return make_task(uid=uid, name=f"task-{uid}", phase=phase, status=fields)


def make(per_second: float = 10_000) -> tuple[StatusWriter, FakeApi]:
    api = FakeApi(Journal())
    return StatusWriter(api, per_second), api


async def test_the_last_value_of_a_task_wins() -> None:
    writer, api = make()
    first = writer.submit(in_phase(Phase.QUEUED))
    second = writer.submit(in_phase(Phase.RUNNING))
    async with running(writer):
        assert await first is await second is Written.DONE
    assert api.phases == ["Running"]


async def test_a_value_waits_for_its_time_and_an_end_does_not() -> None:
    clock = FakeClock()
    api = FakeApi(Journal())
    writer = StatusWriter(api, 10_000, clock)
    quiet = writer.submit(in_phase(Phase.QUEUED, "a"), 1.0)
    other = writer.submit(in_phase(Phase.QUEUED, "b"), 1.0)
    end = writer.submit(in_phase(Phase.SUCCEEDED, "b"))
    async with running(writer):
        await end
        assert api.phases == ["Succeeded"]
        assert not quiet.done()
        clock.now += 0.999
        await asyncio.sleep(0.01)
        assert not quiet.done()
        clock.now += 0.001
        await quiet
    assert await other is Written.DONE
    assert api.phases == ["Succeeded", "Queued"]


async def test_news_that_never_ends_is_written_nevertheless() -> None:
    clock = FakeClock()
    api = FakeApi(Journal())
    writer = StatusWriter(api, 10_000, clock)
    async with running(writer):
        for number in range(10):
            told = writer.submit(in_phase(Phase.RUNNING, attempt=number), 1.0)
            clock.now += 0.4
        await told
    assert api.written[-1][1]["attempt"] == 9


async def test_equal_values_are_not_written() -> None:
    writer, api = make()
    async with running(writer):
        assert await writer.submit(in_phase(Phase.RUNNING)) is Written.DONE
        assert await writer.submit(in_phase(Phase.RUNNING)) is Written.DONE
    assert len(api.written) == 1


async def test_what_an_earlier_operator_wrote_is_not_written_again() -> None:
    writer, api = make()
    task = in_phase(Phase.QUEUED)
    writer.seen("u", task.status.to_object())
    async with running(writer):
        assert await writer.submit(task) is Written.DONE
        assert api.written == []
        writer.forget("u")
        await writer.submit(task)
    assert len(api.written) == 1


async def test_a_task_has_one_write_at_a_time() -> None:
    writer, api = make()
    api.open.clear()
    async with running(writer):
        first = writer.submit(in_phase(Phase.QUEUED))
        await eventually(lambda: api.running)
        second = writer.submit(in_phase(Phase.SUCCEEDED))
        await asyncio.sleep(0.02)
        assert api.running == 1
        api.open.set()
        assert await first is await second is Written.DONE
    assert api.phases == ["Queued", "Succeeded"]
    assert api.most == 1


async def test_many_tasks_are_written_side_by_side_up_to_a_bound() -> None:
    writer, api = make()
    api.open.clear()
    async with running(writer):
        futures = [writer.submit(in_phase(Phase.QUEUED, str(number))) for number in range(3 * IN_FLIGHT)]
        await eventually(lambda: api.running == IN_FLIGHT)
        await asyncio.sleep(0.02)
        api.open.set()
        await asyncio.gather(*futures)
    assert api.most == IN_FLIGHT


async def test_an_outage_of_the_api_server_is_waited_out() -> None:
    writer, api = make()
    api.failures = [Unavailable("down")] * 3
    async with running(writer):
        assert await writer.submit(in_phase(Phase.SUCCEEDED)) is Written.DONE
    assert api.phases == ["Succeeded"]


async def test_a_value_that_came_during_an_outage_replaces_the_one_that_failed() -> None:
    writer, api = make()
    api.failures = [Unavailable("down")]
    api.open.clear()
    async with running(writer):
        first = writer.submit(in_phase(Phase.QUEUED))
        await eventually(lambda: api.running)
        second = writer.submit(in_phase(Phase.SUCCEEDED))
        api.open.set()
        assert await first is await second is Written.DONE
    assert api.phases == ["Succeeded"]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (NotFound("no such task"), Written.GONE),
        (Conflict("another uid"), Written.GONE),
        (Invalid("status.phase: Unsupported value"), Written.REFUSED),
    ],
)
async def test_a_final_answer_is_told_and_not_tried_again(error: TaskflowError, result: Written) -> None:
    writer, api = make()
    api.failures = [error]
    async with running(writer):
        assert await writer.submit(in_phase(Phase.SUCCEEDED)) is result
        await asyncio.sleep(0.01)
        assert api.written == []
        assert await writer.submit(in_phase(Phase.SUCCEEDED)) is Written.DONE


async def test_a_missing_right_stops_no_other_task() -> None:
    writer, api = make()
    api.failures = [Forbidden("no right")]
    async with running(writer):
        writer.submit(in_phase(Phase.SUCCEEDED, "a"))
        assert await writer.submit(in_phase(Phase.SUCCEEDED, "b")) is Written.DONE


async def test_writes_keep_to_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    rest = asyncio.sleep

    async def sleep(seconds: float) -> None:
        clock.now += max(seconds, 1e-6)  # as every real sleep, longer than nothing
        await rest(0)

    monkeypatch.setattr("taskflow_operator.runtime.status_writer.asyncio.sleep", sleep)
    api = FakeApi(Journal())
    writer = StatusWriter(api, 10, clock)
    started = clock.now
    futures = [writer.submit(in_phase(Phase.QUEUED, str(number))) for number in range(50)]
    job = asyncio.create_task(writer.run())
    await asyncio.gather(*futures)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    # Ten at once from the full bucket, the other forty at ten a second.
    assert clock.now - started == pytest.approx(4.0, abs=0.2)


async def test_a_waiter_that_gave_up_disturbs_nobody() -> None:
    writer, api = make()
    abandoned = writer.submit(in_phase(Phase.QUEUED))
    abandoned.cancel()
    other = writer.submit(in_phase(Phase.SUCCEEDED, completion_time=NOW + timedelta(seconds=1)))
    async with running(writer):
        assert await other is Written.DONE
    assert api.phases == ["Succeeded"]


async def test_running_writes_may_end_before_the_process_does() -> None:
    writer, api = make()
    api.open.clear()
    async with running(writer):
        future = writer.submit(in_phase(Phase.SUCCEEDED))
        await eventually(lambda: api.running)
    api.open.set()
    await writer.drain(5)
    assert future.result() is Written.DONE


async def test_an_end_does_not_wait_for_what_another_namespace_has_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_writer, "IN_FLIGHT", 1)
    writer, api = make()
    crowd = [make_task(uid=str(n), name=f"crowd-{n}", namespace="crowd", phase=Phase.QUEUED) for n in range(500)]
    api.open.clear()
    async with running(writer):
        for task in crowd:
            writer.submit(task)
        await eventually(lambda: api.running)
        end = writer.submit(make_task(uid="end", namespace="team-a", phase=Phase.SUCCEEDED))
        api.open.set()
        await end
        # Those that were being written, and the share of the other namespace.
        assert len(api.written) <= 2 * IN_FLIGHT + 2
