from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_PAYLOAD_BYTES, Task
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.tasks.rules.decision import (
    ASK_AGAIN,
    Decision,
    DependencyState,
    End,
    Enqueue,
    Facts,
    Hold,
    Keep,
    decide,
)
from tests.builders import NOW, make_task
from tests.unit.taskflow_operator.fakes import at

OPEN, MISSING = DependencyState.OPEN, DependencyState.MISSING
SUCCEEDED, BADLY = DependencyState.SUCCEEDED, DependencyState.ENDED_BADLY


def pools(*queues: str, namespace: str = "team-a") -> ServedQueues:
    found = ServedQueues()
    found.put(namespace, "main", frozenset(queues))
    return found


SERVED = pools("default")


def decided(task: Task, *states: DependencyState, cycle: Sequence[str] = (), now: datetime = NOW) -> Decision:
    return decide(task, Facts(SERVED, states, cycle), now)


def backing_off(seconds: float, reason: str = Reason.BACKING_OFF) -> dict[str, Any]:
    return {
        "reason": reason,
        "message": "attempt 1: no; attempt 2 follows in 5 s",
        "next_attempt_time": NOW + timedelta(seconds=seconds),
    }


def test_a_task_whose_queue_is_served_is_queued() -> None:
    assert decided(make_task()) == Enqueue()


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (ServedQueues(), "there is no WorkerPool"),
        (pools("z", "a"), "queues served there: a, z"),
        (pools("default", namespace="team-b"), "there is no WorkerPool"),
    ],
)
def test_a_queue_that_nobody_serves_waits_for_a_pool(served: ServedQueues, message: str) -> None:
    assert decide(make_task(), Facts(served), NOW) == Hold(
        Phase.PENDING,
        Reason.NO_WORKER_POOL,
        f"no WorkerPool in namespace 'team-a' serves queue 'default'; {message}",
        None,
    )


def test_what_is_queued_stays_queued_when_its_pool_goes() -> None:
    assert decide(make_task(phase=Phase.QUEUED), Facts(ServedQueues()), NOW) == Keep(None)


def test_a_backoff_waits_for_its_time_and_keeps_its_reason() -> None:
    task = make_task(phase=Phase.PENDING, attempt=2, status=backing_off(1))
    assert decided(task) == Hold(Phase.PENDING, Reason.BACKING_OFF, task.status.message, at(1))


def test_a_backoff_is_kept_over_a_suspension() -> None:
    task = make_task(phase=Phase.SUSPENDED, attempt=2, status=backing_off(1, Reason.SUSPENDED))
    found = decided(task)
    assert isinstance(found, Hold)
    assert (found.reason, found.until) == (Reason.BACKING_OFF, at(1))
    assert found.message == "attempt 2 is due at 2026-03-01T12:00:01Z"


def test_what_a_handler_waits_for_keeps_its_reason_over_a_suspension() -> None:
    status = backing_off(60, Reason.AGAIN) | {"continuations": 1, "message": "not ready"}
    found = decided(make_task(phase=Phase.PENDING, attempt=2, status=status))
    assert found == Hold(Phase.PENDING, Reason.AGAIN, "not ready", at(60))
    found = decided(make_task(phase=Phase.SUSPENDED, attempt=2, status=status | {"reason": Reason.SUSPENDED}))
    assert isinstance(found, Hold)
    assert (found.reason, found.message) == (Reason.AGAIN, "attempt 2 is due at 2026-03-01T12:01:00Z")
    failed = status | {"reason": Reason.SUSPENDED, "last_error": {"attempt": 1, "reason": "HandlerError"}}
    found = decided(make_task(phase=Phase.SUSPENDED, attempt=2, status=failed))
    assert isinstance(found, Hold)
    assert found.reason == Reason.BACKING_OFF


def test_a_wait_for_the_next_attempt_ends_with_the_deadline() -> None:
    status = backing_off(3600, Reason.AGAIN) | {"start_time": at(-10)}
    found = decided(make_task(phase=Phase.PENDING, attempt=2, status=status, activeDeadlineSeconds=30))
    assert isinstance(found, Hold)
    assert found.until == at(20)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_backoff_that_is_over_is_queued(seconds: float) -> None:
    assert decided(make_task(phase=Phase.PENDING, attempt=2, status=backing_off(seconds))) == Enqueue()


@pytest.mark.parametrize("phase", [None, Phase.PENDING, Phase.QUEUED])
def test_a_suspended_task_is_held_also_when_it_is_queued(phase: Phase | None) -> None:
    found = decided(make_task(phase=phase, suspend=True))
    assert isinstance(found, Hold)
    assert (found.phase, found.reason) == (Phase.SUSPENDED, Reason.SUSPENDED)


def test_what_runs_goes_on_when_it_is_suspended() -> None:
    assert decided(make_task(phase=Phase.RUNNING, suspend=True)) == Keep(None)


def test_a_task_is_held_until_its_time() -> None:
    found = decided(make_task(not_before=at(5)))
    assert found == Hold(Phase.PENDING, Reason.NOT_BEFORE, "waits for 2026-03-01T12:00:05Z", at(5))
    assert decided(make_task(not_before=at(0))) == Enqueue()


@pytest.mark.parametrize("phase", [None, *(phase for phase in Phase if not phase.terminal)])
def test_a_task_that_is_being_deleted_ends_wherever_it_is(phase: Phase | None) -> None:
    found = decided(make_task(phase=phase, suspend=True).model_copy(update={"deleting": True}))
    assert found == End(Phase.CANCELLED, Reason.CANCELLED, "cancelled, because the Task is being deleted")


@pytest.mark.parametrize("phase", [None, *(phase for phase in Phase if not phase.terminal)])
def test_a_cancelled_task_ends_wherever_it_is(phase: Phase | None) -> None:
    found = decided(make_task(phase=phase, cancel=True, suspend=True))
    assert isinstance(found, End)
    assert (found.phase, found.reason) == (Phase.CANCELLED, Reason.CANCELLED)


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.QUEUED, Phase.RUNNING])
def test_the_deadline_counts_from_the_first_start_in_every_phase(phase: Phase) -> None:
    task = make_task(phase=phase, active_deadline_seconds=10, status={"start_time": NOW})
    assert not isinstance(decided(task, now=at(9)), End)
    found = decided(task, now=at(10))
    assert isinstance(found, End)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.DEADLINE_EXCEEDED)
    if phase is not Phase.PENDING:
        assert decided(task) == Keep(at(10))


def test_without_a_start_the_deadline_has_not_begun() -> None:
    assert decided(make_task(active_deadline_seconds=1), now=at(100)) == Enqueue()


def test_a_task_that_waits_too_long_in_its_queue_ends() -> None:
    task = make_task(phase=Phase.QUEUED, queue_timeout_seconds=10, status={"queued_time": NOW})
    assert decided(task, now=at(9)) == Keep(at(10))
    found = decided(task, now=at(10))
    assert isinstance(found, End)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.QUEUE_TIMEOUT)


def test_the_earlier_of_two_limits_is_looked_at_first() -> None:
    task = make_task(
        phase=Phase.QUEUED,
        attempt=2,
        queue_timeout_seconds=10,
        active_deadline_seconds=7,
        status={"queued_time": NOW, "start_time": NOW},
    )
    assert decided(task) == Keep(at(7))


@pytest.mark.parametrize(
    ("outcome", "state", "kind"),
    [
        ("Succeeded", SUCCEEDED, Enqueue),
        ("Succeeded", OPEN, Hold),
        ("Succeeded", MISSING, Hold),
        ("Succeeded", BADLY, End),
        ("Finished", SUCCEEDED, Enqueue),
        ("Finished", BADLY, Enqueue),
        ("Finished", OPEN, Hold),
        ("Finished", MISSING, Hold),
    ],
)
def test_a_dependency_is_waited_for(outcome: str, state: DependencyState, kind: type[Decision]) -> None:
    assert isinstance(decided(make_task(depends_on=[{"name": "first", "outcome": outcome}]), state), kind)


def test_what_only_the_history_could_tell_is_waited_for_and_asked_again() -> None:
    task = make_task(depends_on=[{"name": "gone"}])
    held = decided(task, DependencyState.UNKNOWN)
    assert isinstance(held, Hold)
    assert (held.phase, held.reason, held.until) == (Phase.PENDING, Reason.DEPENDENCY_WAITING, NOW + ASK_AGAIN)
    assert "history" in held.message
    assert "'gone'" in held.message


def test_a_cancelled_task_ends_although_nobody_can_tell_of_its_dependencies() -> None:
    task = make_task(depends_on=[{"name": "gone"}], cancel=True)
    assert isinstance(decided(task, DependencyState.UNKNOWN), End)


def test_one_failed_dependency_ends_the_task_although_another_is_open() -> None:
    task = make_task(depends_on=[{"name": "a"}, {"name": "b"}])
    found = decided(task, OPEN, BADLY)
    assert isinstance(found, End)
    assert found.reason is Reason.DEPENDENCY_FAILED
    assert "'b'" in found.message


def test_a_cycle_is_named() -> None:
    task = make_task(depends_on=[{"name": "b"}])
    found = decided(task, OPEN, cycle=("report", "b", "report"))
    assert found == End(Phase.FAILED, Reason.DEPENDENCY_CYCLE, "dependsOn is a cycle: report -> b -> report")


def payload(size: int) -> dict[str, Any]:
    """Arguments whose JSON is that long: [["x..."],{}]."""
    return {"args": ["x" * (size - len('[[""],{}]'))]}


def test_a_payload_at_the_limit_is_queued() -> None:
    assert decided(make_task(**payload(MAX_PAYLOAD_BYTES))) == Enqueue()


def test_a_payload_above_the_limit_is_refused_with_both_sizes() -> None:
    found = decide(make_task(**payload(MAX_PAYLOAD_BYTES + 1)), Facts(ServedQueues()), NOW)
    assert isinstance(found, End)
    assert found.reason is Reason.PAYLOAD_TOO_LARGE
    assert f"are {MAX_PAYLOAD_BYTES + 1} bytes" in found.message
    assert f"at most {MAX_PAYLOAD_BYTES}" in found.message


def test_args_and_kwargs_are_measured_together() -> None:
    half = "x" * (MAX_PAYLOAD_BYTES // 2)
    assert isinstance(decided(make_task(args=[half], kwargs={"k": half})), End)


def test_a_payload_that_was_too_deep_to_read_is_refused() -> None:
    found = decided(make_task().model_copy(update={"payload_too_deep": True}))
    assert isinstance(found, End)
    assert found.reason is Reason.PAYLOAD_TOO_DEEP


def test_a_specification_that_cannot_be_read_is_refused_also_while_it_is_suspended() -> None:
    found = decided(make_task(suspend=True).model_copy(update={"unreadable": "notBefore: year 0"}))
    assert found == End(Phase.FAILED, Reason.INVALID_SPEC, "spec cannot be read: notBefore: year 0")
