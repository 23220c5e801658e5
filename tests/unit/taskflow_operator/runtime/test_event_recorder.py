from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import TaskStatus
from taskflow_core.errors import Forbidden, TaskflowError
from taskflow_operator.runtime.event_recorder import BURST, OBJECT_PAUSE_SECONDS, SHARE, EventRecorder, Regarding
from tests.unit.taskflow_operator.builders import failed_task, make_task
from tests.unit.taskflow_operator.clock import Clock, until

POOL = Regarding("WorkerPool", "team", "main", "p1")


class FakeApi:
    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.error: TaskflowError | None = None
        self.tried = 0

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        self.tried += 1
        if self.error is not None:
            raise self.error
        assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/team/events")
        self.posted.append(body)
        return {}


def make(api: FakeApi, clock: Clock) -> EventRecorder:
    return EventRecorder(api, "op-1", clock=clock, now=lambda: datetime(2030, 1, 1, tzinfo=UTC))


async def post_all(events: EventRecorder) -> None:
    running = asyncio.create_task(events.run())
    await until(lambda: not events._waiting and not events._arrived.is_set())
    await asyncio.sleep(0)
    running.cancel()


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("taskflow_k8s_events_total", {"result": result}) or 0.0


async def test_what_is_in_order_is_a_normal_event() -> None:
    api = FakeApi()
    events = make(api, Clock())
    events.note(POOL, "ScaledUp", "from 0 to 4 pods", action="Scale")
    events.note(POOL, "ScaledUp", "from 4 to 8 pods", action="Scale")
    await post_all(events)
    (event,) = api.posted
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "ScaledUp", "from 0 to 4 pods")


async def test_a_failed_task_becomes_a_warning_with_its_reason_and_message() -> None:
    api = FakeApi()
    events = make(api, Clock())
    events.failed(failed_task(message="RuntimeError: no"))
    await post_all(events)
    (event,) = api.posted
    assert event["type"] == "Warning"
    assert event["reason"] == "HandlerError"
    assert event["note"] == "RuntimeError: no"
    assert event["regarding"] == {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "namespace": "team",
        "name": "task-u1",
        "uid": "u1",
    }
    assert event["reportingController"] == "taskflow.dev/operator"
    assert event["eventTime"] == "2030-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.CANCELLED, Phase.RUNNING, None])
async def test_nothing_else_becomes_an_event(phase: Phase | None) -> None:
    events = make(FakeApi(), Clock())
    events.failed(make_task(status=TaskStatus(phase=phase)))
    assert not events._waiting


async def test_one_object_is_not_told_of_again_for_a_while() -> None:
    clock = Clock()
    events = make(FakeApi(), clock)
    for _ in range(5):
        events.warn(POOL, "DeploymentStuck", "no image", action="Deploy")
    assert len(events._waiting) == 1
    events.warn(POOL, "DeploymentRefused", "quota", action="Deploy")
    assert len(events._waiting) == 2
    clock.now += OBJECT_PAUSE_SECONDS
    events.warn(POOL, "DeploymentStuck", "no image", action="Deploy")
    assert len(events._waiting) == 3


async def test_ten_thousand_failures_are_a_handful_of_events_and_the_rest_is_counted() -> None:
    events = make(FakeApi(), Clock())
    before = counted("dropped")
    for number in range(10_000):
        events.failed(failed_task(f"u{number}"))
    assert len(events._waiting) == BURST * SHARE
    assert counted("dropped") - before == 10_000 - BURST * SHARE


async def test_what_fails_in_one_namespace_leaves_the_others_their_events() -> None:
    clock = Clock()
    events = make(FakeApi(), clock)
    for number in range(300):
        events.failed(failed_task(f"u{number}"))
        clock.now += 0.1
    before = len(events._waiting)
    for number in range(10):
        events.warn(Regarding("WorkerPool", "other", "main", f"p{number}"), "StreamReset", "no", action="Reset")
    assert len(events._waiting) == before + 10


async def test_an_event_that_is_refused_is_dropped_and_counted() -> None:
    api = FakeApi()
    api.error = Forbidden("namespace is being terminated")
    events = make(api, Clock())
    before = counted("failed")
    events.failed(failed_task())
    await post_all(events)
    assert (api.tried, counted("failed") - before) == (1, 1)


async def test_a_note_is_cut_at_what_the_api_server_takes_without_cutting_a_letter() -> None:
    events = make(FakeApi(), Clock())
    events.failed(failed_task(message="ä" * 1000))
    assert events._waiting[0]["note"] == "ä" * 512
