"""The health of our resources for Argo CD, as the documents have it. Redis has the Lua 5.1 that Argo CD has."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
import yaml

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.run_once import PastRun
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_operator.tasks.rules import transitions
from tests.builders import NOW, UID, make_event, make_object, make_task
from tests.documents import blocks

pytestmark = pytest.mark.integration
PAGE = "docs/install.md"
PREFIX = "resource.customizations.health.taskflow.dev_"


def script(kind: str) -> str:
    (block,) = [each for each in blocks(PAGE) if each.text.startswith(PREFIX)]
    found: str = yaml.safe_load(block.text)[PREFIX + kind]
    return found


def health(raw: redis.Redis, kind: str, body: dict[str, Any]) -> list[str]:
    lines = [
        "local obj = cjson.decode(ARGV[1])",
        "local function health()",
        script(kind),
        "end",
        "local found = health()",
        "return {found.status, found.message}",
    ]
    answer: Any = raw.eval("\n".join(lines), 0, json.dumps(body))
    return list(answer)


def shown(status: TaskStatus) -> dict[str, Any]:
    return make_object(make_task().model_copy(update={"status": status}))


def running() -> Task:
    task = make_task()
    return task.model_copy(update={"status": transitions.running(task, "pod-1:ab", NOW)})


TASK = make_task()
RAN = PastRun(UID, Phase.SUCCEEDED, NOW)
CASES = {
    "new": (make_object(TASK), "Progressing", "waits for the operator"),
    "queued": (
        shown(transitions.queued(TASK, Reason.WAITING_FOR_WORKER, "waits", NOW)),
        "Progressing",
        "WaitingForWorker: waits",
    ),
    "running": (make_object(running()), "Progressing", "Started: attempt 1 runs on pod-1:ab"),
    "suspended": (
        shown(transitions.waiting(TASK, Phase.SUSPENDED, Reason.SUSPENDED, "by spec.suspend", NOW)),
        "Suspended",
        "Suspended: by spec.suspend",
    ),
    "succeeded": (
        shown(transitions.ended(running(), make_event(EventKind.SUCCEEDED, result=3), 0.0)),
        "Healthy",
        "Succeeded: ",
    ),
    "ran before": (shown(transitions.not_run(TASK, RAN, "ran as x", NOW)), "Healthy", "AlreadyRan: ran as x"),
    "failed": (
        shown(transitions.stopped(TASK, Phase.FAILED, Reason.QUEUE_TIMEOUT, "no worker", NOW)),
        "Degraded",
        "QueueTimeout: no worker",
    ),
    "cancelled": (
        shown(transitions.stopped(TASK, Phase.CANCELLED, Reason.CANCELLED, "by spec.cancel", NOW)),
        "Degraded",
        "Cancelled: by spec.cancel",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_as_healthy_as_its_phase_says(raw: redis.Redis, case: str) -> None:
    body, status, message = CASES[case]
    assert health(raw, "Task", body) == [status, message]


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ([], "Progressing"),
        ([("Ready", "True")], "Healthy"),
        ([("Ready", "False")], "Progressing"),
        ([("Ready", "False"), ("Stalled", "True")], "Degraded"),
    ],
)
def test_a_pool_is_as_healthy_as_its_conditions_say(
    raw: redis.Redis, conditions: list[tuple[str, str]], status: str
) -> None:
    told = [{"type": kind, "status": value, "message": "said"} for kind, value in conditions]
    assert health(raw, "WorkerPool", {"status": {"conditions": told}})[0] == status
