from __future__ import annotations

import asyncio
import getpass
import threading
from typing import Any, cast

import kopf
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from taskflow_operator.kopf_handlers.lifecycle import configure, watch
from taskflow_operator.kopf_handlers.runner import FIRST_PAUSE, LONGEST_PAUSE, KopfRunner
from taskflow_operator.settings import OperatorSettings
from tests.unit.taskflow_operator.clock import Clock


def test_kopf_copies_no_task_and_keeps_the_former_state_of_pools() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    storage = settings.persistence.diffbase_storage
    deep: Any = None
    for _ in range(900):
        deep = [deep]
    for kind, essence in (("Task", {}), ("Deployment", {}), ("WorkerPool", {"spec": {"queues": ["a"]}})):
        spec = {"queues": ["a"]} if kind == "WorkerPool" else {"args": deep}
        body = kopf.Body({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec})
        assert {**storage.build(body=body), "metadata": 0} == {**essence, "metadata": 0}


async def test_the_watch_starts_under_a_user_id_that_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    class Spawned(Exception):  # noqa: N818
        pass

    spawn = kopf.spawn_tasks

    async def observed(**arguments: Any) -> Any:
        # Far enough: before any of them has begun, so that nobody is asked for anything.
        tasks = await spawn(**arguments)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise Spawned

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(kopf, "spawn_tasks", observed)
    with pytest.raises(Spawned):
        await watch(cast(Any, None), OperatorSettings(token_key=SecretStr("k" * 32)))(asyncio.Event())


def ends() -> float:
    return REGISTRY.get_sample_value("taskflow_watch_ends_total", {"watch": "kopf"}) or 0.0


async def test_a_watch_that_ends_is_started_again_with_growing_pauses() -> None:
    clock, pauses, lives = Clock(), list[float](), list[str]()
    enough = asyncio.Event()

    async def watch(_: asyncio.Event) -> None:
        lives.append(threading.current_thread().name)
        raise RuntimeError("410 Gone")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 7:
            enough.set()
            await asyncio.Event().wait()

    before = ends()
    with capture_logs() as logs:
        running = asyncio.create_task(KopfRunner(watch, clock=clock, sleep=sleep).run())
        await asyncio.wait_for(enough.wait(), 10)
    running.cancel()
    assert pauses == [FIRST_PAUSE, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]
    assert ends() - before == 7
    assert set(lives) == {"kopf"}
    assert [line["event"] for line in logs] == ["watch_ended"] * 7
    assert "410 Gone" in logs[0]["error"]


async def test_after_a_long_life_the_pause_is_short_again() -> None:
    clock, pauses = Clock(), list[float]()
    enough = asyncio.Event()

    async def watch(_: asyncio.Event) -> None:
        if len(pauses) == 2:
            clock.now += LONGEST_PAUSE + 1

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            enough.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(KopfRunner(watch, clock=clock, sleep=sleep).run())
    await asyncio.wait_for(enough.wait(), 10)
    running.cancel()
    assert pauses == [1, 2, 1]


async def test_stopping_sets_the_flag_and_waits_for_the_thread() -> None:
    said = list[str]()
    began = threading.Event()

    async def watch(stop: asyncio.Event) -> None:
        began.set()
        await stop.wait()
        said.append("stopped in order")

    running = asyncio.create_task(KopfRunner(watch).run())
    assert await asyncio.to_thread(began.wait, 10)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert said == ["stopped in order"]


async def test_a_watch_that_will_not_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskflow_operator.kopf_handlers.runner.STOP_SECONDS", 0.05)
    began, free = threading.Event(), threading.Event()

    async def watch(_: asyncio.Event) -> None:
        began.set()
        free.wait()

    with capture_logs() as logs:
        running = asyncio.create_task(KopfRunner(watch).run())
        assert await asyncio.to_thread(began.wait, 10)
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert running.done()
    assert logs[-1]["event"] == "watch_abandoned"
    free.set()


async def test_it_says_how_long_there_is_no_watch() -> None:
    clock = Clock()
    asleep = asyncio.Event()

    async def watch(_: asyncio.Event) -> None:
        return

    async def sleep(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    runner = KopfRunner(watch, clock=clock, sleep=sleep)
    assert runner.down_seconds == 0
    running = asyncio.create_task(runner.run())
    await asyncio.wait_for(asleep.wait(), 10)
    clock.now += 7
    assert runner.down_seconds == 7
    running.cancel()
