from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.task import Task
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.errors import Invalid
from taskflow_operator.isolated.jobs import POD_SECONDS, Job, job, job_name, problem
from taskflow_operator.pools.deployment import pod_template
from tests.builders import NOW, UID, make_task

ONCE = f"tf:{{team-a}}:once:{UID}:1"


def isolated(name: str = "report", uid: str = UID, attempt: int = 1) -> Task:
    return make_task(name=name, uid=uid, attempt=attempt, isolation="Pod", args=["payload"])


def template(**worker: Any) -> dict[str, Any]:
    body = {
        "metadata": {"uid": "p", "namespace": "team-a", "name": "main"},
        "spec": {
            "queues": ["default"],
            "template": {
                "metadata": {"labels": {"team": "a", naming.LABEL_POOL: "main"}, "annotations": {"note": "x"}},
                "spec": {
                    "nodeSelector": {"gpu": "yes"},
                    "restartPolicy": "Always",
                    "containers": [{"name": "worker", **worker}, {"image": "b"}],
                },
            },
        },
    }
    return pod_template(WorkerPool.from_object(body), image="taskflow-worker:1", lease_seconds=15)


def worker_of(made: dict[str, Any]) -> dict[str, Any]:
    containers = made["spec"]["template"]["spec"]["containers"]
    return next(dict(each) for each in containers if each.get("name") == "worker")


def test_a_job_is_the_pools_template_that_runs_once() -> None:
    made = job(isolated(), template())
    spec = made["spec"]["template"]["spec"]
    assert (made["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    assert spec["nodeSelector"] == {"gpu": "yes"}
    assert [each.get("name") for each in spec["containers"]] == ["worker", None]
    container = worker_of(made)
    assert (container["command"], container["args"]) == (["python", "-m", "taskflow_worker"], ["--once"])
    assert container["env"][-1] == {"name": "TASKFLOW_WORKER_ONCE", "value": ONCE}
    assert "payload" not in str(made)


def test_a_pools_own_command_and_arguments_stay_in_front() -> None:
    own = template(
        command=["mine"],
        args=["--app", "shop:app"],
        env=[{"name": "TASKFLOW_WORKER_ONCE", "value": "tf:{team-a}:once:x:1"}],
    )
    container = worker_of(job(isolated(), own))
    assert (container["command"], container["args"]) == (["mine"], ["--app", "shop:app", "--once"])
    assert [each["value"] for each in container["env"] if each["name"] == "TASKFLOW_WORKER_ONCE"] == [ONCE]


def test_arguments_that_are_no_list_are_refused_with_their_place() -> None:
    with pytest.raises(Invalid, match="container worker: args: expected list, found int"):
        job(isolated(), template(args=5))


def test_its_pod_is_none_of_the_pools_and_goes_with_the_task() -> None:
    made = job(isolated(attempt=2), template())
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert naming.LABEL_POOL not in labels
    assert labels == {"team": "a", **made["metadata"]["labels"]}
    assert made["metadata"]["labels"] == {
        naming.LABEL_MANAGED_BY: naming.MANAGED_BY,
        naming.LABEL_TASK_UID: UID,
        naming.LABEL_ATTEMPT: "2",
    }
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Task", "report", UID, True)


@pytest.mark.parametrize("name", ["a", "a.b.c", "x" * 39 + ".y", "n" * 253])
def test_a_job_has_room_for_its_pods_names(name: str) -> None:
    made = job_name(isolated(name, attempt=100))
    assert len(made) <= 63 - 6
    assert all(plan_scale_down and plan_scale_down.isalnum() for plan_scale_down in made.split("-"))


def test_no_two_attempts_or_tasks_have_one_job() -> None:
    names = {job_name(isolated(uid=uid, attempt=attempt)) for uid in ("u1", "u2") for attempt in (1, 2)}
    assert len(names) == 4


def seen(*, age: float = 0, **condition: str) -> Job:
    body = job(isolated(), template())
    created = (NOW - timedelta(seconds=age)).isoformat()
    body["metadata"] |= {"uid": "j", "creationTimestamp": created}
    at = {"lastTransitionTime": created, "status": "True"}
    return Job.from_object({**body, "status": {"conditions": [{**at, **condition}]} if condition else {}})


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "uid": "p", "creationTimestamp": NOW.isoformat()}, "status": status}


def test_a_job_is_read_as_it_was_made() -> None:
    found = seen()
    assert (found.key, found.name) == (AttemptKey("team-a", UID, 1), job_name(isolated()))
    assert (found.ended, found.terminating) == (None, False)
    assert seen(type="FailureTarget").ended is None
    assert seen(type="Failed").ended == seen(type="Complete").ended == NOW


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Running"}, None),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}]},
            "pod p: ImagePullBackOff: no such",
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ]
            },
            "pod p: Unschedulable: 0/3 nodes",
        ),
    ],
)
def test_what_a_pod_waits_for_is_told(status: dict[str, Any], words: str | None) -> None:
    assert problem(seen(), pod(**status), NOW) == words


def test_a_pod_that_ended_without_its_attempt_is_told_with_its_exit_code_and_last_words() -> None:
    ended = {"exitCode": 1, "reason": "Error", "message": "taskflow-worker: Redis at r:6379 refuses the login\n"}
    status = pod(containerStatuses=[{"name": "worker", "state": {"terminated": ended}}])
    assert problem(seen(type="Failed"), status, NOW) == (
        "pod p ended without taking the attempt, with exit code 1: taskflow-worker: Redis at r:6379 refuses the login; "
        "another follows"
    )


def test_a_pod_that_runs_and_does_not_take_its_attempt_is_told_after_a_while() -> None:
    running = pod(containerStatuses=[{"name": "worker", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}])
    started = datetime.fromisoformat("2026-01-01T00:00:00Z")
    assert problem(seen(), running, started + timedelta(seconds=9)) is None
    assert problem(seen(), running, started + timedelta(seconds=11)) == (
        "pod p runs since 2026-01-01T00:00:00Z and has not taken the attempt: it starts, or does not reach Redis"
    )


def test_nobody_asks_the_pod_of_a_task_whether_it_is_ready() -> None:
    containers = job(isolated(), template())["spec"]["template"]["spec"]["containers"]
    container = next(each for each in containers if each["name"] == "worker")
    assert "readinessProbe" not in container
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_a_job_without_a_pod_is_told_after_a_while() -> None:
    assert problem(seen(), None, NOW) is None
    assert "has no pod; its events say why" in (problem(seen(age=POD_SECONDS + 1), None, NOW) or "")
