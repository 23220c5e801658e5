from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from taskflow_core.errors import Dependency, Forbidden, Unavailable
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import RECOVERY_SECONDS, DependencyHealth
from taskflow_operator.runtime.supervisor import (
    MAX_CONSECUTIVE,
    RESTARTS,
    ConsecutiveErrors,
    TooManyErrorsError,
    keep_running,
    run_all,
)
from tests.unit.taskflow_operator.clock import Clock, until


def test_a_loop_goes_on_over_any_number_of_poisoned_objects_while_others_pass() -> None:
    errors = ConsecutiveErrors("test")
    with capture_logs() as logs:
        for number in range(MAX_CONSECUTIVE * 3):
            errors.record(ValueError("poison"), uid=f"u{number}")
            if number % 10 == 0:
                errors.clear()
            errors.check()
    assert logs[0]["uid"] == "u0"
    assert len(logs) == MAX_CONSECUTIVE * 3


def test_a_loop_that_fails_on_everything_says_so() -> None:
    errors = ConsecutiveErrors("test")
    for _ in range(MAX_CONSECUTIVE):
        errors.check()
        errors.record(ValueError("all of them"))
    with pytest.raises(TooManyErrorsError, match="50 errors in a row"):
        errors.check()


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

    with pytest.raises(TooManyErrorsError):
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
        await run_all([steady(), failing()])
    assert ended == ["steady"]


async def test_a_loop_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = list[bool]()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.append(True)
        await asyncio.Event().wait()

    job = asyncio.create_task(run_all([stubborn()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    job.cancel()
    await asyncio.wait([job], timeout=5)
    assert job.cancelled()
    assert swallowed == [True]


def test_an_outage_is_two_lines_however_many_notice_it() -> None:
    clock = Clock()
    redis = DependencyHealth("redis", clock)
    with capture_logs() as logs:
        for _ in range(60):
            redis.failed(Unavailable("Redis: refused"))
            redis.failed(Unavailable("Redis: timeout"))
            clock.now += 1
        redis.succeeded()
        assert redis.seconds == 60
        clock.now += RECOVERY_SECONDS
        redis.succeeded()
        redis.succeeded()
    assert [line["event"] for line in logs] == ["dependency_unavailable", "dependency_recovered"]
    assert logs[0]["error"] == "Redis: refused"
    assert logs[1]["failures"] == 120


@pytest.mark.parametrize("dependency", [Dependency.REDIS, Dependency.API_SERVER, Dependency.POSTGRES])
def test_the_error_says_which_dependency_is_unavailable(
    dependency: Dependency, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {each: DependencyHealth(each) for each in dependency_health.DEPENDENCIES}
    monkeypatch.setattr(dependency_health, "DEPENDENCIES", mine)
    with capture_logs() as logs:
        dependency_health.failed(Unavailable("refused", dependency))
    assert [(line["event"], line["dependency"]) for line in logs] == [("dependency_unavailable", dependency)]


def test_refused_rights_are_told_once_however_many_requests_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setitem(
        dependency_health.DEPENDENCIES,
        dependency_health.PERMISSIONS,
        DependencyHealth(dependency_health.PERMISSIONS, clock, recovery_seconds=30.0),
    )
    with capture_logs() as logs:
        for number in range(50):
            dependency_health.failed(Forbidden(f'tasks.taskflow.dev "{number}" is forbidden'))
            clock.now += 5
            # Other requests are granted meanwhile.
            dependency_health.succeeded(dependency_health.PERMISSIONS)
        clock.now += 25
        dependency_health.succeeded(dependency_health.PERMISSIONS)
    assert [(line["event"], line["dependency"]) for line in logs] == [
        ("dependency_unavailable", "api-server-rights"),
        ("dependency_recovered", "api-server-rights"),
    ]
    assert logs[1]["failures"] == 50
