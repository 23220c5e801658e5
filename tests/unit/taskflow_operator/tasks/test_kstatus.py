"""What waiters of Helm, Flux and kpt read from our statuses: the rules of kstatus.

Source: https://github.com/kubernetes-sigs/cli-utils, pkg/kstatus/status: `checkGenericProperties` and `checkGeneration`
(generic.go), `Compute` and `checkReadyCondition` (status.go).

A WorkerPool goes through all three. A Task has none of their conditions on purpose: it is current as soon as what is in
its specification was looked at, however long it runs and however it ends, so that a release that holds a Task does not
wait for it or fail with it. `kubectl wait --for=condition=Finished` is how to wait for one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import pytest

from taskflow_core.domain.events import Advance, EventKind, Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.run_once import PastRun
from taskflow_core.domain.task import Progress, Task, TaskStatus
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_operator.pools.status import PoolFacts, pool_status
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.unknown_handler import PutBack
from tests.builders import NOW, UID, make_event, make_object, make_task


class Kstatus(StrEnum):
    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


def compute(body: Mapping[str, Any]) -> Kstatus:
    """The status of a custom resource. Order and defaults are those of the source."""
    if body["metadata"].get("deletionTimestamp"):
        return Kstatus.TERMINATING
    status = body.get("status") or {}
    generation, observed = body["metadata"].get("generation"), status.get("observedGeneration")
    if generation is not None and observed is not None and observed != generation:
        return Kstatus.IN_PROGRESS
    conditions = [(each["type"], each["status"]) for each in status.get("conditions") or ()]
    for condition in conditions:
        if condition == ("Reconciling", "True"):
            return Kstatus.IN_PROGRESS
        if condition == ("Stalled", "True"):
            return Kstatus.FAILED
    for kind, value in conditions:
        if kind == "Ready":
            return Kstatus.CURRENT if value == "True" else Kstatus.IN_PROGRESS
    return Kstatus.CURRENT


def after(status: TaskStatus, task: Task | None = None) -> Task:
    return (task or make_task(generation=2)).model_copy(update={"status": status})


def queued() -> Task:
    return after(transitions.queued(make_task(generation=2), Reason.WAITING_FOR_WORKER, "waits", NOW))


def running(**spec: Any) -> Task:
    return after(transitions.running(make_task(generation=2, **spec), "w", NOW), make_task(generation=2, **spec))


def failure(reason: Reason) -> Failure:
    return Failure(reason=reason, message="no")


def finish(kind: EventKind, **payload: Any) -> TaskStatus:
    return transitions.ended(running(), make_event(kind, **payload), 0.0)


TRANSITIONS: dict[str, tuple[Callable[..., TaskStatus], Callable[[], TaskStatus]]] = {
    "pending": (
        transitions.waiting,
        lambda: transitions.waiting(make_task(generation=2), Phase.PENDING, Reason.NO_WORKER_POOL, "none", NOW),
    ),
    "suspended": (
        transitions.waiting,
        lambda: transitions.waiting(make_task(generation=2), Phase.SUSPENDED, Reason.SUSPENDED, "told to", NOW),
    ),
    "queued": (transitions.queued, lambda: queued().status),
    "running": (transitions.running, lambda: running().status),
    "advanced": (
        transitions.advanced,
        lambda: transitions.advanced(running(), Advance(progress=Progress(done=1, total=2))),
    ),
    "observed": (
        transitions.observed,
        lambda: transitions.observed(running().model_copy(update={"generation": 2})),
    ),
    "succeeded": (transitions.ended, lambda: finish(EventKind.SUCCEEDED, result=1, runMs=5)),
    "failed, another attempt follows": (
        transitions.failed,
        lambda: transitions.failed(running(), failure(Reason.HANDLER_ERROR), "w", NOW, 0.0),
    ),
    "handed back": (
        transitions.failed,
        lambda: transitions.failed(running(), failure(Reason.DRAIN), "w", NOW, 0.0),
    ),
    "put back, since its worker does not know the handler": (
        transitions.put_back,
        lambda: transitions.put_back(running(), PutBack(NOW, NOW, "no handler"), NOW),
    ),
    "an array waits for the history": (
        transitions.history_away,
        lambda: transitions.history_away(running(), NOW),
    ),
    "a new array waits for the history": (
        transitions.history_away,
        lambda: transitions.history_away(make_task(generation=2), NOW),
    ),
    "failed for good": (
        transitions.failed,
        lambda: transitions.failed(running(), failure(Reason.NOT_RETRYABLE), "w", NOW, 0.0),
    ),
    "an array succeeded": (
        transitions.completed,
        lambda: transitions.completed(running(), "10 items ended", NOW),
    ),
    "cancelled while it ran": (transitions.ended, lambda: finish(EventKind.FAILED, reason="Cancelled", message="")),
    "cancelled while it waited": (
        transitions.stopped,
        lambda: transitions.stopped(queued(), Phase.CANCELLED, Reason.CANCELLED, "told to", NOW),
    ),
    "to be continued": (transitions.ended, lambda: finish(EventKind.AGAIN, seconds=60)),
    "not run, since it ran before": (
        transitions.not_run,
        lambda: transitions.not_run(make_task(generation=2), PastRun(UID, Phase.SUCCEEDED, NOW), "ran as x", NOW),
    ),
    "refused": (
        transitions.stopped,
        lambda: transitions.stopped(make_task(generation=2), Phase.FAILED, Reason.PAYLOAD_TOO_LARGE, "too much", NOW),
    ),
    "bare": (transitions.bare, lambda: transitions.bare(finish(EventKind.SUCCEEDED, result=1, runMs=5))),
}


def test_every_transition_is_among_them() -> None:
    made = {
        function
        for name, function in vars(transitions).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and function.__module__ == transitions.__name__
        and function.__annotations__["return"] == "TaskStatus"
    }
    assert made == {function for function, _ in TRANSITIONS.values()}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_task_is_current_once_its_specification_was_looked_at(name: str) -> None:
    task = after(TRANSITIONS[name][1]())
    assert compute(make_object(task)) is Kstatus.CURRENT


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_task_whose_specification_changed_is_in_progress_until_it_is_observed(name: str) -> None:
    changed = after(TRANSITIONS[name][1]()).model_copy(update={"generation": 3})
    assert compute(make_object(changed)) is Kstatus.IN_PROGRESS
    seen = after(transitions.observed(changed), changed)
    assert compute(make_object(seen)) is Kstatus.CURRENT
    assert {each.observed_generation for each in seen.status.conditions} == {3}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_exactly_the_ends_of_a_task_are_finished_and_say_how(name: str) -> None:
    """For those who wait for one outcome by a condition of their own choice."""
    status = TRANSITIONS[name][1]()
    true = {each.type for each in status.conditions if each.status == "True"} - {"Accepted"}
    assert status.phase is not None
    ends = {Phase.SUCCEEDED: "Complete", Phase.FAILED: "Failed", Phase.CANCELLED: "Cancelled"}
    if status.phase.terminal:
        assert true == {"Finished", ends[status.phase]}
    else:
        assert "Finished" not in true


def deployed(replicas: int, ready: int, *conditions: dict[str, str]) -> dict[str, Any]:
    counts = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": replicas}
    return {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": conditions, **counts}}


STUCK = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too long"}


@pytest.mark.parametrize(
    ("found", "refusal", "expected"),
    [
        (None, None, Kstatus.IN_PROGRESS),
        (deployed(2, 0), None, Kstatus.IN_PROGRESS),
        (deployed(2, 2), None, Kstatus.CURRENT),
        (deployed(3, 3), None, Kstatus.IN_PROGRESS),
        (deployed(2, 0, STUCK), None, Kstatus.FAILED),
        (None, "spec.template: Invalid", Kstatus.FAILED),
    ],
)
def test_a_pool_is_in_progress_current_or_failed(found: Any, refusal: str | None, expected: Kstatus) -> None:
    metadata = {"uid": "u", "namespace": "team-a", "name": "main", "generation": 2}
    body: dict[str, Any] = {"metadata": metadata, "spec": {"queues": ["default"], "replicas": 2}}
    body["status"] = pool_status(WorkerPool.from_object(body), PoolFacts(deployment=found, refusal=refusal), NOW)
    assert compute(body) is expected
    metadata["generation"] = 3
    assert compute(body) is Kstatus.IN_PROGRESS
    metadata["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert compute(body) is Kstatus.TERMINATING
