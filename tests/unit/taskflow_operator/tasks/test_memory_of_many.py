"""What a hundred thousand open Tasks cost the operator: bytes, not time."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.sharing import shared
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from tests.builders import NOW

NUMBER = 2000
BYTES = 2600
"""Of each: so 100,000 fit into 260 MB beside the operator's own 130. Python 3.11 takes 2,070."""


def raw(number: int, **status: Any) -> dict[str, Any]:
    """As the API server sends it, with all defaults, its condition of one of ten seconds."""
    condition = {
        "type": "Finished",
        "status": "False",
        "reason": "Suspended",
        "message": "suspended by spec.suspend",
        "lastTransitionTime": f"2026-11-25T12:00:0{number % 10}Z",
        "observedGeneration": 1,
    }
    retry = {
        "maxAttempts": 3,
        "backoffSeconds": 5,
        "backoffFactor": 2,
        "maxBackoffSeconds": 600,
        "jitterPercent": 10,
    }
    body: dict[str, Any] = {
        "metadata": {
            "uid": f"0b0e7d8e-5c0f-4a54-9a3a-0d5b8f{number:06}",
            "namespace": "crowd",
            "name": f"task-{number}",
            "creationTimestamp": "2026-11-25T12:00:00Z",
            "generation": 1,
            "labels": {"customer": f"c-{number}"},
        },
        "spec": {
            "handler": "reports.make",
            "kwargs": {"order": number},
            "queue": "default",
            "isolation": "Worker",
            "priority": 0,
            "suspend": True,
            "cancel": False,
            "retryPolicy": retry,
        },
        "status": {
            "observedGeneration": 1,
            "phase": "Suspended",
            "reason": "Suspended",
            "attempt": 1,
            "handbacks": 0,
            "message": "suspended by spec.suspend",
            "attempts": 0,
            "duplicateDeliveries": 0,
            "staleEvents": 0,
            "outputs": [],
            "conditions": [condition | {"type": kind} for kind in ("Accepted", "Queued", "Finished")],
            **status,
        },
    }
    parsed: dict[str, Any] = json.loads(json.dumps(body))
    return parsed


def test_an_open_task_is_kept_in_two_kibibytes() -> None:
    bodies = [json.dumps(raw(number)) for number in range(NUMBER)]
    kept = OpenTasks()
    tracemalloc.start()
    try:
        kept.add(Task.from_object(json.loads(bodies[0])))
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for body in bodies[1:]:
            kept.add(Task.from_object(json.loads(body)))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / (NUMBER - 1) < BYTES


def test_a_shared_task_says_what_it_said() -> None:
    plain, one, other = (Task.from_object(raw(7)) for _ in range(3))
    assert shared(one) == shared(other) == plain
    assert one.model_dump(mode="json", by_alias=True) == plain.model_dump(mode="json", by_alias=True)
    assert one.status is other.status
    assert one.spec.retry_policy is other.spec.retry_policy
    # What is made of one is no other's.
    changed = one.model_copy(update={"status": one.status.model_copy(update={"attempt": 2})})
    assert (changed.status.attempt, other.status.attempt) == (2, 1)
    assert changed.model_fields_set >= {"status"}


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, 1.0), ([1], [True])])
def test_results_that_python_takes_for_equal_are_not_taken_for_one(one: Any, other: Any) -> None:
    found = [shared(Task.from_object(raw(1, phase="Succeeded", result=value))) for value in (one, other)]
    assert [json.dumps(task.status.result) for task in found] == [json.dumps(one), json.dumps(other)]


def held(task: Task, now: datetime) -> TaskStatus:
    return transitions.waiting(task, Phase.SUSPENDED, "Suspended", "suspended by spec.suspend", now)


def queued(task: Task, now: datetime) -> TaskStatus:
    return transitions.queued(task, Reason.WAITING_FOR_WORKER, "waits for a free worker", now)


@pytest.mark.parametrize("say", [held, queued])
def test_what_the_operator_itself_says_of_many_in_a_second_is_kept_once(
    say: Callable[[Task, datetime], TaskStatus],
) -> None:
    kept = OpenTasks()
    for number in range(3):
        task = Task.from_object(raw(number) | {"status": {}})
        kept.add(task)
        kept.set_status(task.uid, say(task, NOW + timedelta(milliseconds=number)))
    one, *others = (known.task.status for known in kept)
    assert one.conditions[0].last_transition_time == NOW
    assert all(status is one for status in others)
