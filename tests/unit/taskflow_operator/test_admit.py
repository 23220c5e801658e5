from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from taskflow_operator.admit import Admitted, Refuse, Wait, admit

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_PAYLOAD_BYTES
from taskflow_operator.memory import PoolQueues
from tests.builders import NOW, make_task


def pools(*queues: str, namespace: str = "team-a") -> PoolQueues:
    found = PoolQueues()
    found.put(namespace, "main", frozenset(queues))
    return found


def backing_off(seconds: float) -> dict[str, Any]:
    return {
        "reason": Reason.BACKING_OFF,
        "message": "attempt 1: no; attempt 2 follows in 5 s",
        "next_attempt_time": NOW + timedelta(seconds=seconds),
    }


def test_a_task_whose_queue_is_served_is_admitted() -> None:
    assert admit(make_task(), pools("default"), NOW) == Admitted()


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (PoolQueues(), "there is no WorkerPool"),
        (pools("z", "a"), "queues served there: a, z"),
        (pools("default", namespace="team-b"), "there is no WorkerPool"),
    ],
)
def test_a_queue_that_nobody_serves_waits_for_a_pool(served: PoolQueues, message: str) -> None:
    decision = admit(make_task(), served, NOW)
    assert decision == Wait(
        Reason.NO_WORKER_POOL, f"no WorkerPool in namespace 'team-a' serves queue 'default'; {message}", None
    )


def test_a_backoff_waits_for_its_time_and_keeps_its_reason() -> None:
    task = make_task(phase=Phase.PENDING, attempt=2, status=backing_off(1))
    assert admit(task, pools("default"), NOW) == Wait(
        Reason.BACKING_OFF, task.status.message, NOW + timedelta(seconds=1)
    )


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_backoff_that_is_over_is_admitted(seconds: float) -> None:
    task = make_task(phase=Phase.PENDING, attempt=2, status=backing_off(seconds))
    assert admit(task, pools("default"), NOW) == Admitted()


def payload(size: int) -> dict[str, Any]:
    """Arguments whose JSON is that long: [["x..."],{}]."""
    return {"args": ["x" * (size - len('[[""],{}]'))]}


def test_a_payload_at_the_limit_is_admitted() -> None:
    assert admit(make_task(**payload(MAX_PAYLOAD_BYTES)), pools("default"), NOW) == Admitted()


def test_a_payload_above_the_limit_is_refused_with_both_sizes() -> None:
    decision = admit(make_task(**payload(MAX_PAYLOAD_BYTES + 1)), PoolQueues(), NOW)
    assert isinstance(decision, Refuse)
    assert decision.reason is Reason.PAYLOAD_TOO_LARGE
    assert f"are {MAX_PAYLOAD_BYTES + 1} bytes" in decision.message
    assert f"at most {MAX_PAYLOAD_BYTES}" in decision.message


def test_args_and_kwargs_are_measured_together() -> None:
    half = "x" * (MAX_PAYLOAD_BYTES // 2)
    assert isinstance(admit(make_task(args=[half], kwargs={"k": half}), pools("default"), NOW), Refuse)
