from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from taskflow_core.domain.phases import FINISHED_SELECTOR, OPEN_SELECTOR, Phase
from taskflow_core.domain.task import RetryPolicy, Task, TaskStatus
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.errors import Conflict, Invalid, NotFound
from taskflow_core.kube.client import KubeClient
from taskflow_operator.pools.status import PoolFacts, pool_status
from tests.builders import NOW
from tests.integration.crds.conftest import Cluster

pytestmark = pytest.mark.integration
API = "/apis/taskflow.dev/v1alpha1"
TASKS = f"{API}/namespaces/default/tasks"
POOLS = f"{API}/namespaces/default/workerpools"
_numbers = count()


def task(name: str | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name or f"task-{next(_numbers)}"},
        "spec": {"handler": "reports.summarise", **spec},
    }


def pool(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {"queues": ["default"], **spec},
    }


def set_status(cluster: Cluster, kind: str, name: str, status: dict[str, Any]) -> Any:
    patch = json.dumps({"status": status})
    return json.loads(
        cluster.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch, "-o", "json")
    )


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("delete", "tasks.taskflow.dev,workerpools.taskflow.dev", "--all")
    yield cluster
    cluster.kubectl("delete", "tasks.taskflow.dev,workerpools.taskflow.dev", "--all")


def filled(policy: RetryPolicy) -> dict[str, Any]:
    """What the API server fills in: everything but lists, which stay absent."""
    return {name: value for name, value in policy.model_dump(by_alias=True).items() if value != ()}


def test_what_a_task_leaves_out_is_filled_in(cluster: Cluster) -> None:
    made = cluster.create(task(outputs=[{"name": "o"}]))
    assert made["spec"] == {
        "handler": "reports.summarise",
        "queue": "default",
        "isolation": "Worker",
        "priority": 0,
        "outputs": [{"name": "o", "contentType": "application/octet-stream"}],
        "retryPolicy": filled(RetryPolicy()),
        "rerun": "Always",
        "suspend": False,
        "cancel": False,
    }
    assert Task.from_object(made).spec.retry_policy == RetryPolicy()


def test_a_part_of_the_retry_policy_keeps_the_other_defaults(cluster: Cluster) -> None:
    made = cluster.create(task(retryPolicy={"maxAttempts": 1}))
    assert made["spec"]["retryPolicy"] == filled(RetryPolicy(max_attempts=1))


def test_arguments_of_any_json_are_kept_as_they_are(cluster: Cluster) -> None:
    args: list[Any] = [None, True, 3, 1.5, "x", [None, [1]], {"a": None, "b": {"c": []}}]
    kwargs: dict[str, Any] = {"none": None, "deep": {"a": [None, {"b": None}]}}
    made = cluster.create(task(args=args, kwargs=kwargs))
    assert (made["spec"]["args"], made["spec"]["kwargs"]) == (args, kwargs)
    assert list(Task.from_object(made).spec.args) == args


def test_a_manifest_at_every_limit_is_admitted(cluster: Cluster) -> None:
    cluster.create(
        task(
            "a" * 253,
            handler="h" * 253,
            args=list(range(64)),
            kwargs={f"k{number}": number for number in range(64)},
            queue="q" * 63,
            priority=9,
            inputs=[{"name": f"n{number}", "key": "a/" + "k" * 510} for number in range(16)],
            outputs=[{"name": f"n{number}", "contentType": "text/csv; charset=utf-8"} for number in range(16)],
            retryPolicy={"maxAttempts": 100, "backoffSeconds": 86400, "backoffFactor": 10, "maxBackoffSeconds": 86400},
        )
    )
    queues = [f"q{number}" for number in range(32)]
    cluster.create(pool("p" * 52, queues=queues, concurrency=64, replicas=1000))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("handler", "other"),
        ("args", [2]),
        ("args", [1, None]),
        ("kwargs", {"a": 1, "b": 2}),
        ("queue", "other"),
        ("isolation", "Pod"),
        ("notBefore", "2030-01-01T00:00:00Z"),
        ("dependsOn", [{"name": "x"}]),
        ("notify", ["x"]),
        ("attemptTimeoutSeconds", 9),
        ("inputs", [{"name": "a", "key": "c"}]),
        ("outputs", []),
        ("retryPolicy", {"maxAttempts": 9}),
        ("rerun", "Never"),
    ],
)
def test_what_is_wanted_of_a_task_cannot_be_changed(cluster: Cluster, path: str, value: Any) -> None:
    made = cluster.create(
        task(args=[1], kwargs={"a": 1}, inputs=[{"name": "a", "key": "b"}], outputs=[{"name": "o"}], priority=1)
    )
    name = made["metadata"]["name"]
    patch = json.dumps({"spec": {path: value}})
    done = cluster.run("patch", "tft", name, "--type=merge", "-p", patch)
    assert done.returncode != 0
    assert f"{path} is immutable; delete this Task and create another one" in done.stderr


def test_kwargs_are_the_same_without_their_nulls(cluster: Cluster) -> None:
    """`kubectl apply` removes a null of an object, which `kubectl create` has kept."""
    wanted = task(args=[None, {"a": None}], kwargs={"a": None, "b": {"c": 1}, "d": [None]})
    name = cluster.create(wanted)["metadata"]["name"]

    def kwargs() -> Any:
        return json.loads(cluster.run("get", "tft", name, "-o", "json").stdout)["spec"]["kwargs"]

    assert kwargs() == {"a": None, "b": {"c": 1}, "d": [None]}
    for _ in range(2):
        done = cluster.run("apply", "-f", "-", manifest=wanted)
        assert done.returncode == 0, done.stderr
        assert kwargs() == {"b": {"c": 1}, "d": [None]}
    changes: list[dict[str, Any]] = [{"b": None}, {"b": {"c": 2}}, {"d": []}, {"e": 1}]
    for changed in changes:
        patch = json.dumps({"spec": {"kwargs": changed}})
        assert "kwargs is immutable" in cluster.run("patch", "tft", name, "--type=merge", "-p", patch).stderr


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("priority", 5),
        ("suspend", True),
        ("cancel", True),
        ("activeDeadlineSeconds", 5),
        ("queueTimeoutSeconds", 5),
        ("ttlSecondsAfterFinished", 0),
    ],
)
def test_what_controls_a_task_can_be_changed(cluster: Cluster, path: str, value: Any) -> None:
    name = cluster.create(task(args=[1, None]))["metadata"]["name"]
    cluster.kubectl("patch", "tft", name, "--type=merge", "-p", json.dumps({"spec": {path: value}}))
    assert json.loads(cluster.kubectl("get", "tft", name, "-o", "json"))["spec"][path] == value


def test_a_cancellation_cannot_be_taken_back(cluster: Cluster) -> None:
    name = cluster.create(task(cancel=True))["metadata"]["name"]
    done = cluster.run("patch", "tft", name, "--type=merge", "-p", '{"spec": {"cancel": false}}')
    assert done.returncode != 0
    assert "a cancelled Task stays cancelled; create another one" in done.stderr


def test_labels_of_a_task_can_be_changed_and_applying_it_again_changes_nothing(cluster: Cluster) -> None:
    manifest = task(args=[1, {"a": "b"}])
    cluster.kubectl("apply", "-f", "-", manifest=manifest)
    assert "unchanged" in cluster.kubectl("apply", "-f", "-", manifest=manifest)
    cluster.kubectl("label", "tft", manifest["metadata"]["name"], "team=x")


def test_a_user_cannot_write_the_status_with_the_resource(cluster: Cluster) -> None:
    made = cluster.create(task() | {"status": {"phase": "Succeeded"}})
    assert "status" not in made
    name = made["metadata"]["name"]
    cluster.kubectl("patch", "tft", name, "--type=merge", "-p", json.dumps({"status": {"phase": "Failed"}}))
    assert "status" not in json.loads(cluster.kubectl("get", "tft", name, "-o", "json"))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Lost"}, "Unsupported value"),
        ({"attempt": 0}, "should be greater than or equal to 1"),
        ({"message": "x" * 1025}, "may not be more than 1024"),
        ({"conditions": [{"type": "Finished", "status": "True"}]}, "Required value"),
        ({"conditions": [{"type": "Finished", "status": "Yes"}]}, "Unsupported value"),
        ({"startTime": "yesterday"}, "must be of type date-time"),
    ],
)
def test_a_status_that_does_not_fit_is_refused(cluster: Cluster, status: dict[str, Any], words: str) -> None:
    name = cluster.create(task())["metadata"]["name"]
    done = cluster.run(
        "patch", "tft", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    assert done.returncode != 0
    assert words in done.stderr


def names(cluster: Cluster, selector: str) -> set[str]:
    done = cluster.kubectl("get", "tft", f"--field-selector={selector}", "-o", "jsonpath={.items[*].metadata.name}")
    return set(done.split())


def test_open_tasks_can_be_selected_and_one_without_status_is_open(empty: Cluster) -> None:
    for phase in Phase:
        empty.create(task(phase.lower()))
        set_status(empty, "tft", phase.lower(), {"phase": phase})
    empty.create(task("new"))
    assert names(empty, OPEN_SELECTOR) == {"new", "pending", "suspended", "queued", "running"}
    assert names(empty, "status.phase!=Succeeded") == {
        "new",
        "pending",
        "suspended",
        "queued",
        "running",
        "failed",
        "cancelled",
    }
    assert names(empty, "status.phase=Failed") == {"failed"}
    assert names(empty, FINISHED_SELECTOR) == {"succeeded", "failed", "cancelled"}


def test_tasks_can_be_selected_by_queue_and_handler(empty: Cluster) -> None:
    empty.create(task("a", queue="reports", handler="one"))
    empty.create(task("b", queue="other", handler="one"))
    assert names(empty, "spec.queue=reports") == {"a"}
    assert names(empty, "spec.handler=one") == {"a", "b"}


def test_a_pool_can_be_scaled(empty: Cluster) -> None:
    made = empty.create(pool("main"))
    assert ("replicas" in made["spec"], made["spec"]["concurrency"], made["spec"]["template"]) == (False, 1, {})
    empty.kubectl("scale", "workerpool.taskflow.dev/main", "--replicas=5")
    status = pool_status(WorkerPool.from_object(made), PoolFacts(), NOW)
    set_status(empty, "tfp", "main", status)
    scale = empty.raw(f"{POOLS}/main/scale")
    assert scale["spec"]["replicas"] == 5
    assert scale["status"]["selector"] == status["selector"]


def test_the_number_of_pods_has_one_owner(empty: Cluster) -> None:
    made = empty.create(pool("main", scaling={"maxReplicas": 5}))
    assert made["spec"]["scaling"] == {
        "minReplicas": 0,
        "maxReplicas": 5,
        "scaleDownDelaySeconds": 60,
        "idleSecondsToZero": 300,
    }
    refused = empty.run("scale", "workerpool.taskflow.dev/main", "--replicas=3").stderr
    assert "replicas has one owner: remove spec.replicas to let spec.scaling decide" in refused


def test_a_pool_keeps_any_pod_spec(empty: Cluster) -> None:
    spec = {"containers": [{"name": "worker", "env": [{"name": "A", "value": "1"}]}], "nodeSelector": {"a": "b"}}
    made = empty.create(pool("main", template={"metadata": {"labels": {"a": "b"}}, "spec": spec}))
    assert made["spec"]["template"] == {"metadata": {"labels": {"a": "b"}}, "spec": spec}


def test_discovery_knows_short_names_and_the_category(cluster: Cluster) -> None:
    found = {each["name"]: each for each in cluster.raw(API)["resources"]}
    short = {"tasks": "tft", "taskschedules": "tfs", "tasktemplates": "tftt", "workerpools": "tfp"}
    assert {name for name in found if "/" in name} == {
        "tasks/status",
        "taskschedules/status",
        "workerpools/status",
        "workerpools/scale",
    }
    kinds = {name: (each["shortNames"], each["categories"]) for name, each in found.items() if "/" not in name}
    assert kinds == {name: ([letters], ["taskflow"]) for name, letters in short.items()}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tft", "one unit of work"),
        ("tft.spec", "Only priority, suspend, cancel"),
        ("tft.spec.retryPolicy.maxAttempts", "does not count"),
        ("tft.status.conditions", "Finished"),
        ("tfp.spec.template", "Overrides for the worker"),
        ("tfp.spec.pool", "Prefork - one process for each Task, for any handler"),
    ],
)
def test_explain_is_the_manual(cluster: Cluster, path: str, words: str) -> None:
    assert words in " ".join(cluster.kubectl("explain", path).split())


def columns(cluster: Cluster, kind: str, *arguments: str) -> list[str]:
    return cluster.kubectl("get", kind, *arguments).splitlines()[0].split()


def test_a_listing_shows_what_one_looks_for(empty: Cluster) -> None:
    empty.create(task("a"))
    empty.create(pool("main"))
    task_columns = ["NAME", "PHASE", "QUEUE", "ATTEMPT", "ITEMS", "REASON", "AGE"]
    pool_columns = ["NAME", "READY", "DESIRED", "MIN", "MAX", "QUEUED", "BUSY", "REASON", "AGE"]
    assert columns(empty, "tft") == task_columns
    assert columns(empty, "tft", "-o", "wide") == [*task_columns, "HANDLER", "WORKER", "DURATION", "MESSAGE"]
    assert columns(empty, "tfp") == pool_columns
    assert columns(empty, "tfp", "-o", "wide") == [*pool_columns, "QUEUES", "POOL", "CONCURRENCY", "PAUSED", "MESSAGE"]
    listed = empty.kubectl("get", "taskflow")
    assert "task.taskflow.dev/a" in listed
    assert "workerpool.taskflow.dev/main" in listed


async def connected(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> KubeClient:
    monkeypatch.setenv("KUBECONFIG", cluster.stack.env()["KUBECONFIG"])
    return await KubeClient.connect()


async def test_our_client_writes_the_status_of_the_same_task_only(
    empty: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Task.from_object(empty.create(task("same")))
    status = TaskStatus(phase=Phase.SUCCEEDED, worker="pod:1", result={"a": [None, 1.5, "é", {"b": None}]}).to_object()
    kube = await connected(empty, monkeypatch)
    try:
        await kube.patch_status("tasks", "default", "same", made.uid, status)
        assert json.loads(empty.kubectl("get", "tft", "same", "-o", "json"))["status"] == status
        with pytest.raises(Conflict, match="no longer the one with uid another"):
            await kube.patch_status("tasks", "default", "same", "another", {"phase": "Failed"})
        with pytest.raises(NotFound):
            await kube.patch_status("tasks", "default", "nothing", made.uid, status)
        with pytest.raises(Invalid, match="Unsupported value"):
            await kube.patch_status("tasks", "default", "same", made.uid, status | {"phase": "Lost"})
    finally:
        await kube.close()
    assert json.loads(empty.kubectl("get", "tft", "same", "-o", "json"))["status"] == status


async def test_our_client_reads_every_page(empty: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskflow_core.kube.client.PAGE_SIZE", 2)
    for number in range(5):
        empty.create(task(f"t{number}"))
    kube = await connected(empty, monkeypatch)
    try:
        pages = [page.items async for page in kube.list_pages(TASKS, OPEN_SELECTOR)]
    finally:
        await kube.close()
    assert [len(page) for page in pages] == [2, 2, 1]


def test_a_task_that_ended_stays_as_it_ended_whatever_write_arrives_late(empty: Cluster) -> None:
    body = empty.create(task())
    name = body["metadata"]["name"]
    set_status(empty, "tft", name, {"phase": "Running", "attempt": 1})
    set_status(empty, "tft", name, {"phase": "Succeeded", "attempt": 1})
    for late in ("Running", "Failed"):
        patch = json.dumps([{"op": "add", "path": "/status", "value": {"phase": late, "attempt": 1}}])
        done = empty.run("patch", "tft", name, "--subresource=status", "--type=json", "-p", patch)
        assert "a Task that ended stays as it ended" in done.stderr
    set_status(empty, "tft", name, {"phase": "Succeeded", "attempt": 1, "message": "said again"})


async def _cancelled_watch() -> None:
    client = await KubeClient.connect()
    began = asyncio.Event()

    async def watch() -> None:
        page = await client.request("GET", TASKS, params={"limit": "1"})
        async for _ in client.watch(TASKS, page["metadata"]["resourceVersion"]):
            began.set()

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(began.wait(), 20)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await client.close()


def test_a_cancelled_watch_leaves_no_connection_open(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", cluster.stack.env()["KUBECONFIG"])
    for _ in range(5):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            asyncio.run(_cancelled_watch())
            gc.collect()
        assert [str(each.message) for each in warned if issubclass(each.category, ResourceWarning)] == []
