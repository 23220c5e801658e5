"""What the components may do by their roles and are refused all the same, on a real API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from taskflow_core.domain import naming
from tests.chart.rendering import DEV, Object, render
from tests.chart.server import Server
from tests.e2e.product import eventually

pytestmark = pytest.mark.integration

OPERATOR, API = (f"system:serviceaccount:taskflow-system:taskflow-{name}" for name in ("operator", "api"))
KINDS = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole", "ClusterRoleBinding"}
OURS = {naming.LABEL_MANAGED_BY: naming.MANAGED_BY}


@pytest.fixture(scope="module")
def guarded(server: Server) -> Iterator[Server]:
    """A server with the chart's roles and policies, a pool, and workloads of the operator and of somebody else."""
    objects = render(*DEV)
    server.namespace("team-a")
    server.apply([each for each in objects if each["kind"] == "CustomResourceDefinition"])
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    policies = [each for each in objects if each["kind"] in KINDS]
    server.apply(policies, "--force-conflicts")
    server.apply(
        [
            deployment("theirs", {}),
            deployment("ours", OURS),
            job("their-job", {}),
            job("our-job", OURS),
            POOL,
            task("known"),
        ]
    )
    # The API server reads policies a moment later.
    eventually(lambda: create(server, OPERATOR, deployment("x", {})).returncode, lambda code: code != 0)
    yield server
    server.kubectl("delete", "deployments,jobs,workerpools.taskflow.dev,tasks.taskflow.dev", "--all", "-n", "team-a")
    for each in policies:
        server.kubectl("delete", each["kind"], each["metadata"]["name"])


def template() -> Object:
    container = {
        "name": "main",
        "image": "image",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [container], "securityContext": security},
    }


def deployment(name: str, labels: dict[str, str], namespace: str = "team-a") -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template()},
    }


def job(name: str, labels: dict[str, str], namespace: str = "team-a") -> Object:
    inner = template()
    inner["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"suspend": True, "template": inner},
    }


POOL: Object = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "main", "namespace": "team-a"},
    "spec": {
        "queues": ["default"],
        "replicas": 0,
        "template": {"spec": {"containers": [{"name": "worker", "image": "good"}]}},
    },
}


def task(name: str, *owners: Object) -> Object:
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": "team-a", "ownerReferences": list(owners)},
        "spec": {"handler": "reports.build", "kwargs": {"region": "eu"}, "priority": 3},
    }


def owner(kind: str, group: str = "taskflow.dev/v1alpha1", *, controller: bool = True) -> Object:
    return {"apiVersion": group, "kind": kind, "name": "nightly", "uid": "1", "controller": controller}


def create(server: Server, who: str, body: Object) -> subprocess.CompletedProcess[str]:
    return server.kubectl("create", f"--as={who}", "--dry-run=server", "-f", "-", stdin=json.dumps(body))


def patch(server: Server, who: str, what: str, change: object) -> subprocess.CompletedProcess[str]:
    return server.kubectl(
        "patch", what, f"--as={who}", "-n", "team-a", "--type=merge", "--dry-run=server", "-p", json.dumps(change)
    )


def test_the_operator_makes_its_own_workloads_and_changes_them(guarded: Server) -> None:
    for body in (deployment("new", OURS), job("new", OURS)):
        done = create(guarded, OPERATOR, body)
        assert done.returncode == 0, done.stderr
    done = patch(guarded, OPERATOR, "deployment/ours", {"spec": {"replicas": 1}})
    assert done.returncode == 0, done.stderr
    done = guarded.kubectl("delete", "job/our-job", f"--as={OPERATOR}", "-n", "team-a", "--dry-run=server")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "taskflow-system"])
def test_the_operator_makes_nothing_in_namespaces_of_the_system(guarded: Server, namespace: str) -> None:
    if namespace == "taskflow-system":
        guarded.namespace(namespace)
    for body in (deployment("new", OURS, namespace), job("new", OURS, namespace)):
        done = create(guarded, OPERATOR, body)
        assert done.returncode != 0
        assert "the operator makes and changes nothing in" in done.stderr


def test_the_operator_touches_nothing_of_others(guarded: Server) -> None:
    refused = [
        create(guarded, OPERATOR, deployment("new", {})),
        create(guarded, OPERATOR, job("new", {})),
        patch(guarded, OPERATOR, "deployment/theirs", {"metadata": {"labels": OURS}}),
        patch(guarded, OPERATOR, "deployment/ours", {"metadata": {"labels": {naming.LABEL_MANAGED_BY: None}}}),
        guarded.kubectl("delete", "job/their-job", f"--as={OPERATOR}", "-n", "team-a", "--dry-run=server"),
    ]
    for done in refused:
        assert done.returncode != 0
        assert "what is labelled as its own" in done.stderr


def test_the_api_only_pauses_and_drains_pools(guarded: Server) -> None:
    for change in ({"paused": True}, {"drain": True}, {"paused": False, "drain": True}):
        done = patch(guarded, API, "workerpools.taskflow.dev/main", {"spec": change})
        assert done.returncode == 0, done.stderr
    image = {"template": {"spec": {"containers": [{"name": "worker", "image": "evil"}]}}}
    for forbidden in (image, {"replicas": 5}, {"queues": ["other"]}, {"template": None}, {"concurrency": 9}):
        done = patch(guarded, API, "workerpools.taskflow.dev/main", {"spec": forbidden})
        assert done.returncode != 0
        assert "the REST API only pauses and drains pools" in done.stderr


def test_the_operator_changes_no_specification_of_a_pool(guarded: Server) -> None:
    done = patch(guarded, OPERATOR, "workerpools.taskflow.dev/main", {"metadata": {"annotations": {"a": "b"}}})
    assert done.returncode == 0, done.stderr
    done = patch(guarded, OPERATOR, "workerpools.taskflow.dev/main", {"spec": {"replicas": 3}})
    assert "the operator changes no specification of a pool" in done.stderr


def test_the_operator_makes_tasks_of_schedules_and_no_others(guarded: Server) -> None:
    done = create(guarded, OPERATOR, task("nightly.20260301t020000z", owner("TaskSchedule")))
    assert done.returncode == 0, done.stderr
    strangers: list[tuple[Object, ...]] = [
        (),
        (owner("WorkerPool"),),
        (owner("TaskSchedule", "example.com/v1"),),
        (owner("TaskSchedule", controller=False),),
    ]
    for owners in strangers:
        done = create(guarded, OPERATOR, task("new", *owners))
        assert "the operator makes only Tasks of TaskSchedules" in done.stderr


def test_the_operator_cancels_tasks_and_changes_nothing_else(guarded: Server) -> None:
    done = patch(guarded, OPERATOR, "tasks.taskflow.dev/known", {"spec": {"cancel": True}})
    assert done.returncode == 0, done.stderr
    for change in ({"priority": 9}, {"priority": None}, {"cancel": True, "suspend": True}):
        done = patch(guarded, OPERATOR, "tasks.taskflow.dev/known", {"spec": change})
        assert "the operator only cancels Tasks" in done.stderr, change


def test_others_are_not_concerned(guarded: Server) -> None:
    done = guarded.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(deployment("new", {})))
    assert done.returncode == 0, done.stderr
