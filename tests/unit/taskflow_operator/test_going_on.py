from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from taskflow_core.errors import Forbidden, TaskflowError, Unavailable
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import SETTLED_SECONDS, Outage
from taskflow_operator.runtime.supervisor import (
    IN_A_ROW,
    RESTARTS,
    EverythingFailsError,
    Stumbles,
    keep_running,
    together,
)
from tests.unit.taskflow_operator.clock import Clock, until


def test_a_loop_goes_on_over_any_number_of_poisoned_objects_while_others_pass() -> None:
    stumbles = Stumbles("test")
    with capture_logs() as logs:
        for number in range(IN_A_ROW * 3):
            stumbles.over(ValueError("poison"), uid=f"u{number}")
            if number % 10 == 0:
                stumbles.passed()
            stumbles.check()
    assert logs[0]["uid"] == "u0"
    assert len(logs) == IN_A_ROW * 3


def test_a_loop_that_fails_on_everything_says_so() -> None:
    stumbles = Stumbles("test")
    for _ in range(IN_A_ROW):
        stumbles.check()
        stumbles.over(ValueError("all of them"))
    with pytest.raises(EverythingFailsError, match="50 errors in a row"):
        stumbles.check()


async def test_a_failed_loop_is_started_again_and_shown_as_failing_meanwhile() -> None:
    clock, failing, starts = Clock(), set[str](), list[float]()
    shown = list[bool]()

    async def start() -> None:
        starts.append(clock.now)
        if len(starts) == 3:
            await asyncio.Event().wait()
        raise OSError("once in a while")

    async def sleep(seconds: float) -> None:
        shown.append("x" in failing)
        await clock.sleep(seconds)

    running = asyncio.create_task(keep_running("x", start, failing, clock=clock, sleep=sleep))
    await until(lambda: len(starts) == 3)
    assert shown == [True, True]
    assert not failing
    running.cancel()


async def test_a_loop_that_fails_right_after_every_start_ends_the_operator() -> None:
    clock, starts = Clock(), list[float]()

    async def start() -> None:
        starts.append(clock.now)
        raise OSError("always")

    with pytest.raises(EverythingFailsError):
        await keep_running("x", start, set(), clock=clock, sleep=clock.sleep)
    assert len(starts) == RESTARTS


async def test_loops_that_ended_long_after_their_start_are_started_for_ever() -> None:
    clock, starts = Clock(), list[float]()

    async def start() -> None:
        starts.append(clock.now)
        if len(starts) == 30:
            await asyncio.Event().wait()
        clock.now += 61

    running = asyncio.create_task(keep_running("x", start, set(), clock=clock, sleep=clock.sleep))
    await until(lambda: len(starts) == 30)
    running.cancel()


async def test_when_one_loop_of_a_part_fails_the_others_end_with_it() -> None:
    ended = list[str]()

    async def steady() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("steady")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await together([steady(), failing()])
    assert ended == ["steady"]


async def test_a_loop_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = list[bool]()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.append(True)
        await asyncio.Event().wait()

    job = asyncio.create_task(together([stubborn()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    job.cancel()
    await asyncio.wait([job], timeout=5)
    assert job.cancelled()
    assert swallowed == [True]


def test_an_outage_is_two_lines_however_many_notice_it() -> None:
    clock = Clock()
    redis = Outage("redis", clock)
    with capture_logs() as logs:
        for _ in range(60):
            redis.away(Unavailable("Redis: refused"))
            redis.away(Unavailable("Redis: timeout"))
            clock.now += 1
        redis.back()
        assert redis.seconds == 60
        clock.now += SETTLED_SECONDS
        redis.back()
        redis.back()
    assert [line["event"] for line in logs] == ["dependency_away", "dependency_back"]
    assert logs[0]["error"] == "Redis: refused"
    assert logs[1]["failures"] == 120


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Redis: refused", dependency_health.REDIS),
        ("broker: refused", dependency_health.REDIS),
        ("API server answered 503: no", dependency_health.API_SERVER),
        ("API server: GET /x: refused", dependency_health.API_SERVER),
        ("history database: refused", dependency_health.POSTGRES),
    ],
)
def test_the_words_of_our_adapters_say_what_is_away(words: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {each: Outage(each) for each in dependency_health.OUTAGES}
    monkeypatch.setattr(dependency_health, "OUTAGES", mine)
    with capture_logs() as logs:
        dependency_health.away(TaskflowError(words))
    assert [line["dependency"] for line in logs] == [name]


def test_refused_rights_are_told_once_however_many_requests_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setitem(
        dependency_health.OUTAGES,
        dependency_health.RIGHTS,
        Outage(dependency_health.RIGHTS, clock, settled_seconds=30.0),
    )
    with capture_logs() as logs:
        for number in range(50):
            dependency_health.away(Forbidden(f'tasks.taskflow.dev "{number}" is forbidden'))
            clock.now += 5
            # Other requests are granted meanwhile.
            dependency_health.back(dependency_health.RIGHTS)
        clock.now += 25
        dependency_health.back(dependency_health.RIGHTS)
    assert [(line["event"], line["dependency"]) for line in logs] == [
        ("dependency_away", "api-server-rights"),
        ("dependency_back", "api-server-rights"),
    ]
    assert logs[1]["failures"] == 50
