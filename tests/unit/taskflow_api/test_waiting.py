from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskflow_api.waiting.estimate import estimate
from taskflow_api.waiting.reasons import DependencyState, PoolState, explain
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Dependency
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.queue_view import QueuePosition
from tests.builders import NOW, make_object, make_task
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.rows import row

LATER = NOW + timedelta(minutes=5)
BUSY = PoolState("main", ("default",), slots=2, busy=2, desired=1)
PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/report"
POOLS = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/workerpools"
WHY = "/v1/namespaces/team-a/tasks/report/why"


def pool(**fields: Any) -> PoolState:
    return PoolState(**({"name": "main", "queues": ("default",)} | fields))


@pytest.mark.parametrize(
    ("task", "pools", "reason", "said", "in_queue"),
    [
        (make_task(phase=Phase.RUNNING), [BUSY], "", "a worker runs the Task", False),
        (make_task(suspend=True), [], "Suspended", "set it to false", False),
        (make_task(cancel=True, suspend=True), [], "Cancelled", "ends as soon", False),
        (make_task(notBefore=LATER), [], "NotBefore", "2026-03-01T12:05:00Z", False),
        (
            make_task(
                attempt=2,
                status={
                    "nextAttemptTime": LATER,
                    "lastError": {"attempt": 1, "reason": "HandlerError", "message": "no luck"},
                },
            ),
            [BUSY],
            "BackingOff",
            "attempt 2 follows at 2026-03-01T12:05:00Z; attempt 1 ended with HandlerError: no luck",
            False,
        ),
        (
            make_task(attempt=2, status={"nextAttemptTime": LATER, "continuations": 1}),
            [BUSY],
            "Again",
            "attempt 2 follows at 2026-03-01T12:05:00Z; the handler asked to be run again then",
            False,
        ),
        (
            make_task(phase=Phase.PENDING, status={"reason": "HistoryUnavailable", "message": "waits for it"}),
            [BUSY],
            "HistoryUnavailable",
            "waits for it",
            False,
        ),
        (make_task(), [], "NoWorkerPool", "the namespace has no WorkerPool", False),
        (
            make_task(queue="gpu"),
            [BUSY],
            "NoWorkerPool",
            "no WorkerPool serves queue 'gpu'; served queues: default",
            False,
        ),
        (make_task(phase=Phase.QUEUED), [pool(paused=True, slots=2)], "PoolPaused", "main is paused", False),
        (make_task(phase=Phase.QUEUED), [pool(drain=True)], "PoolDraining", "main is draining", False),
        (
            make_task(phase=Phase.QUEUED),
            [pool(stalled="PodsFailing: no such image", desired=1)],
            "PoolStalled",
            "pool main: PodsFailing: no such image",
            False,
        ),
        (make_task(phase=Phase.QUEUED), [pool(desired=2)], "WorkersStarting", "2 workers of main are starting", True),
        (make_task(phase=Phase.QUEUED), [pool()], "NoWorkers", "scaled to zero", False),
        (
            make_task(phase=Phase.QUEUED),
            [BUSY, pool(name="off", paused=True)],
            "AllSlotsBusy",
            "all 2 slots of main are busy",
            True,
        ),
        (
            make_task(phase=Phase.QUEUED),
            [pool(slots=2, busy=1)],
            "WaitingForWorker",
            "1 of 2 slots of main are free",
            True,
        ),
        (make_task(), [BUSY], "AllSlotsBusy", "", True),
        (make_task(isolation="Pod", phase=Phase.QUEUED), [], "StartingPod", "the pod of the Task", False),
    ],
)
def test_the_reason_is_the_first_blocker(
    task: Any, pools: list[PoolState], reason: str, said: str, in_queue: bool
) -> None:
    found = explain(task, (), pools, NOW)
    assert (found.reason, found.in_queue) == (reason, in_queue)
    assert said in found.message
    assert found.waiting is (task.status.phase is not Phase.RUNNING)


def test_a_task_that_the_operator_has_not_queued_is_explained() -> None:
    found = explain(make_task(), (), [BUSY], NOW + timedelta(minutes=1))
    assert (found.reason, "operator" in found.message) == ("NotQueuedYet", True)


def test_dependencies_are_named_with_what_they_are() -> None:
    awaited = [
        DependencyState(Dependency(name="done"), Phase.SUCCEEDED),
        DependencyState(Dependency(name="bad", outcome="Finished"), Phase.FAILED),
        DependencyState(Dependency(name="a"), Phase.RUNNING),
        DependencyState(Dependency(name="b"), None),
    ]
    found = explain(make_task(), awaited, [BUSY], NOW)
    assert found.message == "waits for 2 of spec.dependsOn: a (Running), b (does not exist)"
    # What is queued is held by none of it any more.
    assert explain(make_task(phase=Phase.QUEUED), awaited, [BUSY], NOW).reason == "AllSlotsBusy"


def test_the_time_that_a_pool_tells_is_read_from_its_conditions() -> None:
    body = {
        "metadata": {"name": "main"},
        "spec": {"queues": ["a"], "paused": True},
        "status": {
            "slots": 3,
            "busySlots": 1,
            "desiredReplicas": 2,
            "conditions": [
                {"type": "Ready", "status": "False"},
                {"type": "Stalled", "status": "True", "reason": "PodsFailing", "message": "no image"},
            ],
        },
    }
    assert PoolState.from_object(body) == PoolState("main", ("a",), True, False, 3, 1, 2, "PodsFailing: no image")
    assert PoolState.from_object({"metadata": {"name": "x"}, "spec": {"queues": ["a"]}}) == PoolState("x", ("a",))


def test_an_estimate_is_places_by_rate() -> None:
    starts = [NOW - timedelta(seconds=10 * number) for number in range(1, 7)]
    found = estimate(starts, 11, NOW)
    assert found.starts_per_minute == 6.0
    assert found.start == NOW + timedelta(seconds=120)
    assert "11 Tasks ahead; 6 Tasks of the queue started in the last 60 s" in found.basis


def test_the_rate_of_a_stalled_queue_falls_and_then_disappears() -> None:
    starts = [NOW - timedelta(seconds=number) for number in range(1, 11)]
    early, late = (estimate(starts, 0, NOW + timedelta(seconds=wait)).start for wait in (0, 300))
    assert early is not None
    assert late is not None
    assert late - (NOW + timedelta(seconds=300)) > early - NOW
    assert estimate(starts, 0, NOW + timedelta(minutes=16)).start is None


@pytest.mark.parametrize(("starts", "ahead"), [(4, 0), (0, 0), (10, None)])
def test_an_unknown_estimate_is_null(starts: int, ahead: int | None) -> None:
    found = estimate([NOW - timedelta(seconds=number) for number in range(starts)], ahead, NOW)
    assert found.start is None
    assert found.basis.startswith("unknown")


def waits(api: Api, **spec: Any) -> None:
    api.kube.objects[PATH] = make_object(make_task(phase=Phase.QUEUED, **spec))
    api.kube.objects[POOLS] = {
        "items": [
            {"metadata": {"name": "main"}, "spec": {"queues": ["default"]}, "status": {"slots": 2, "busySlots": 2}}
        ]
    }


async def test_the_answer_has_the_place_and_the_estimate() -> None:
    api = Api()
    waits(api, priority=4)
    api.queues.found = QueuePosition(3, exact=True)
    api.history.starts = [datetime.now(UTC) - timedelta(seconds=number) for number in range(10)]
    answer = await api.call("GET", WHY)
    assert answer.status == 200, answer.body
    found = answer.json
    assert (found["waiting"], found["reason"], found["queuePosition"], found["positionExact"]) == (
        True,
        "AllSlotsBusy",
        4,
        True,
    )
    assert found["startsPerMinute"] > 30
    assert found["estimatedStart"] > found["since"]
    assert found["pools"] == [
        {"name": "main", "paused": False, "drain": False, "slots": 2, "busySlots": 2, "stalled": ""}
    ]
    assert api.queues.asked[0][:3] == ("team-a", "default", 4)


async def test_outages_leave_null_values_and_keep_the_reason() -> None:
    api = Api()
    waits(api)
    api.queues.failure = Unavailable("redis")
    api.history.failure = Unavailable("postgres")
    found = (await api.call("GET", WHY)).json
    assert (found["reason"], found["queuePosition"], found["estimatedStart"]) == ("AllSlotsBusy", None, None)
    assert found["estimateBasis"] == "unknown: the history does not answer"


async def test_dependencies_that_are_gone_are_found_in_the_history() -> None:
    api = Api()
    waits(api)
    api.kube.objects[PATH] = make_object(
        make_task(phase=Phase.PENDING, dependsOn=[{"name": "task-0"}, {"name": "never"}])
    )
    api.history.rows = [row(0)]
    found = (await api.call("GET", WHY)).json
    assert found["dependsOn"] == [
        {"name": "task-0", "outcome": "Succeeded", "phase": "Succeeded", "met": True},
        {"name": "never", "outcome": "Succeeded", "phase": None, "met": False},
    ]
    assert found["reason"] == "DependencyWaiting"


async def test_a_deleted_task_does_not_wait_and_a_missing_one_is_404() -> None:
    api = Api()
    api.history.rows = [row(0)]
    found = (await api.call("GET", "/v1/namespaces/team-a/tasks/task-0/why")).json
    assert (found["waiting"], found["reason"]) == (False, "Succeeded")
    assert (await api.call("GET", WHY)).status == 404
    assert (await api.call("GET", WHY, token="bob-token")).status == 403
