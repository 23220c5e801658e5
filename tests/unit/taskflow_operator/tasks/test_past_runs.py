"""Tasks with `spec.rerun`: what ran before, and what becomes of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.run_once import PastRun, digest
from taskflow_core.domain.task import StoredOutput, Task
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks import dispatcher
from taskflow_operator.tasks.past_runs import PATIENCE
from tests.builders import NOW, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts

FORMER = "00000000-0000-4000-8000-000000000001"
OUTPUT = StoredOutput(name="o", key="k", size_bytes=1, sha256="0", content_type="t/t")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dispatcher, dependency_health):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.002)


def scene(phase: Phase | None = Phase.SUCCEEDED, **spec: Any) -> tuple[Parts, Task]:
    """A new Task, and how the same work ended before; None if it never did."""
    parts = Parts()
    parts.serve("default")
    task = parts.add(make_task(**{"rerun": "UnlessSucceeded", **spec}))
    if phase is not None:
        parts.runs.runs[task.namespace, task.name, digest(task.spec)] = PastRun(
            FORMER, phase, NOW, {"rows": 3}, (OUTPUT,)
        )
    return parts, task


async def ended(parts: Parts, task: Task) -> dict[str, Any]:
    """The status as it was written when the Task was closed."""
    await eventually(lambda: parts.tasks.get(task.uid) is None)
    (status,) = [written for _, written in parts.api.written]
    return status


async def test_what_succeeded_before_ends_as_it_did_and_nothing_runs() -> None:
    parts, task = scene()
    async with parts:
        parts.work_queue.add(task.uid)
        status = await ended(parts, task)
    assert (status["phase"], status["reason"], status["result"]) == ("Succeeded", "AlreadyRan", {"rows": 3})
    assert status["message"] == f"ran as {FORMER} until 2026-03-01T12:00:00Z (rerun: UnlessSucceeded)"
    assert [output["key"] for output in status["outputs"]] == ["k"]
    assert (status["attempts"], status.get("startTime")) == (0, None)
    found = {each["type"]: each["status"] for each in status["conditions"]}
    assert found == {"Accepted": "True", "Complete": "True", "Finished": "True"}
    assert parts.publisher.sent == []


async def test_what_somebody_holds_is_left_to_run() -> None:
    # An operator died before it wrote that the Task was queued, and another one asks once more.
    parts, task = scene()
    parts.ledger.claims[AttemptKey.current(task)] = "pod-1:ab|7|n"
    async with parts:
        parts.work_queue.add(task.uid)
        await eventually(lambda: parts.runs.asked)
        await eventually(lambda: not parts.dispatcher._asking)
    assert parts.tasks.get(task.uid) is not None
    assert parts.api.written == []


async def test_an_array_that_ran_before_is_closed_without_its_driver() -> None:
    parts, task = scene(array={"count": 3})
    async with parts:
        parts.work_queue.add(task.uid)
        status = await ended(parts, task)
    assert status["reason"] == "AlreadyRan"
    assert parts.arrays.decisions == []


async def test_never_fails_after_a_failure() -> None:
    parts, task = scene(Phase.FAILED, rerun="Never")
    async with parts:
        parts.work_queue.add(task.uid)
        status = await ended(parts, task)
    assert (status["phase"], status["reason"]) == ("Failed", "AlreadyRan")
    assert "result" not in status
    assert status["message"] == f"ran as {FORMER} until 2026-03-01T12:00:00Z, and ended as Failed (rerun: Never)"


@pytest.mark.parametrize(
    ("phase", "spec"),
    [(None, {}), (Phase.FAILED, {}), (None, {"rerun": "Never"}), (Phase.SUCCEEDED, {"rerun": "Always"})],
)
async def test_what_nothing_prevents_runs(phase: Phase | None, spec: dict[str, Any]) -> None:
    parts, task = scene(phase, **spec)
    async with parts:
        parts.work_queue.add(task.uid)
        await eventually(lambda: parts.publisher.sent)
    assert parts.status(task.uid).phase is Phase.QUEUED
    assert parts.runs.asked == (0 if spec.get("rerun") == "Always" else 1)


async def test_without_the_history_it_waits_and_nothing_is_guessed() -> None:
    parts, task = scene(None)
    parts.runs.away = True
    async with parts:
        parts.work_queue.add(task.uid)
        await eventually(lambda: parts.status(task.uid).reason == "HistoryUnavailable")
        status = parts.status(task.uid)
        assert (status.phase, parts.publisher.sent) == (Phase.PENDING, [])
        assert status.message == (
            "waits for the history database, which alone can tell whether it ran before (rerun: UnlessSucceeded)"
        )
        parts.runs.away = False
        parts.work_queue.add(task.uid)
        await eventually(lambda: parts.publisher.sent)


async def test_it_waits_until_the_end_of_its_predecessor_is_in_the_history() -> None:
    parts, _ = scene(None)
    former = parts.add(make_task(uid=FORMER, name="again", rerun="UnlessSucceeded"))
    parts.tasks.set_status(FORMER, former.status.model_copy(update={"phase": Phase.SUCCEEDED}))
    parts.tasks.close(FORMER, 0.0)
    task = parts.add(make_task(uid=FORMER.replace("1", "2"), name="again", rerun="UnlessSucceeded"))
    async with parts:
        parts.work_queue.add(task.uid)
        await eventually(lambda: parts.status(task.uid).reason == "HistoryUnavailable")
        assert "waits until the history database has the end" in parts.status(task.uid).message
        # It is told, and with it that the work was done.
        parts.runs.ends.add(FORMER)
        parts.runs.runs["team-a", "again", digest(task.spec)] = PastRun(FORMER, Phase.SUCCEEDED, NOW)
        parts.work_queue.add(task.uid)
        status = await ended(parts, task)
    assert status["reason"] == "AlreadyRan"


async def test_it_does_not_wait_for_ever_for_an_end_that_was_lost() -> None:
    parts, _ = scene(None)
    former = parts.add(make_task(uid=FORMER, name="again"))
    parts.tasks.set_status(FORMER, former.status.model_copy(update={"phase": Phase.FAILED}))
    parts.tasks.close(FORMER, 0.0)
    task = parts.add(make_task(uid=FORMER.replace("1", "2"), name="again", rerun="UnlessSucceeded"))
    parts.pass_time((PATIENCE + timedelta(seconds=1)).total_seconds())
    async with parts:
        parts.work_queue.add(task.uid)
        await eventually(lambda: parts.publisher.sent)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Queued"},
        {"phase": "Running", "attempts": 1},
        {"phase": "Pending", "reason": "BackingOff", "attempt": 2, "attempts": 1},
        {"phase": "Suspended", "attempt": 2},
    ],
    ids=str,
)
def test_what_was_queued_once_is_not_asked_about(status: dict[str, Any]) -> None:
    parts = Parts()
    task = parts.add(make_task(rerun="Never", status=status))
    assert not parts.dispatcher._past_runs.wanted(task)
