from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, SHAPES, Object, helm, one, pods, render, shape
from tests.chart.server import NOT_SERVED, Server
from tests.e2e.product import eventually

pytestmark = pytest.mark.integration
NAMESPACES = ("taskflow-system", "team-a", "team-b")


@pytest.fixture(scope="module")
def prepared(server: Server) -> Server:
    for name in NAMESPACES:
        server.namespace(name)
    _crds(server)
    return server


def _crds(server: Server) -> None:
    server.apply([each for each in shape("dev") if each["kind"] == "CustomResourceDefinition"])
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")


@pytest.mark.parametrize("name", SHAPES)
def test_the_api_server_takes_every_object_of_a_shape(prepared: Server, name: str) -> None:
    objects = [each for each in shape(name) if each["kind"] not in NOT_SERVED]
    pools = [
        pool
        for each in objects
        if each["kind"] == "ConfigMap" and "plan.json" in each["data"]
        for pool in json.loads(each["data"]["plan.json"]).get("pools", [])
    ]
    # A pod is admitted only beside its ServiceAccount, which a dry run does not keep.
    if accounts := [each for each in objects if each["kind"] == "ServiceAccount"]:
        prepared.apply(accounts, "--force-conflicts")
    said = prepared.apply(objects + pools, "--dry-run=server", "--force-conflicts")
    assert said.count("serverside-applied") == len(objects) + len(pools)


@pytest.mark.parametrize("name", SHAPES)
def test_pod_security_restricted_admits_every_pod(prepared: Server, name: str) -> None:
    for which, spec in pods(shape(name)):
        metadata = {"name": which.rpartition("/")[2][:60], "namespace": "taskflow-system"}
        # What a controller adds: the volume of a claim, and a spread's key of its pods.
        inner = {key: value for key, value in spec.items() if key != "topologySpreadConstraints"}
        mounted = {mount["name"] for each in spec["containers"] for mount in each.get("volumeMounts", [])}
        known = {volume["name"] for volume in spec.get("volumes", [])}
        extra = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in sorted(mounted - known)]
        inner |= {"serviceAccountName": "default", "volumes": [*spec.get("volumes", []), *extra]}
        prepared.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": inner}], "--dry-run=server")


def test_the_notes_say_what_to_run_and_warn_of_development_services(prepared: Server) -> None:
    def notes(name: str) -> str:
        values = str(CHART / "ci" / f"{name}-values.yaml")
        arguments = ("install", "other", str(CHART), "--dry-run=server", "--namespace", "team-a", "--values", values)
        done = helm(*arguments, kubeconfig=prepared.stack.env()["KUBECONFIG"])
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    # Its CRDs are there already, and not of this release.
    assert "python -m taskflow_core.store.migrate" in notes("bare")
    prepared.kubectl("delete", "crd", "--all", "--wait")
    try:
        assert "WARNING: PostgreSQL, Redis and MinIO are the development services of this chart" in notes("dev")
        assert "helm test -n team-a other" in notes("dev")
        assert "development services" not in notes("external")
        assert "WARNING: networkPolicy.enabled is off" in notes("external")
        assert "rollout status -n team-a deployment/other-taskflow-operator deployment/other-taskflow-api" in notes(
            "external"
        )
    finally:
        _crds(prepared)


class Provisioner:
    """Runs the provisioning of a rendered chart as its own ServiceAccount, with the chart's roles and nothing else."""

    def __init__(self, server: Server, folder: Path, objects: list[Object]) -> None:
        self.server, self.folder = server, folder
        kinds = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap")
        server.apply([e for e in objects if e["kind"] in kinds and "hook" not in str(e["metadata"].get("annotations"))])
        self.plan = folder / "plan.json"
        self.plan.write_text(one(objects, "ConfigMap", "taskflow-provision")["data"]["plan.json"])
        token = server.kubectl("create", "token", "taskflow-provision", "-n", "taskflow-system").stdout.strip()
        view = server.kubectl("config", "view", "--raw", "--flatten", "-o", "json").stdout
        config: dict[str, Any] = json.loads(view)
        config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def run(self, action: str, **values: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "taskflow_operator.install.provision", action, str(self.plan)]
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)} | values
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        found = self.server.kubectl("get", "secret", name, "-n", namespace, "-o", "json")
        assert found.returncode == 0, found.stderr
        return dict(json.loads(found.stdout)["data"])


VALUES = {
    "TASKFLOW_REDIS_URL": "redis://:a@r/0",
    "TASKFLOW_S3_ENDPOINT": "http://s3",
    "TASKFLOW_S3_BUCKET": "b",
    "TASKFLOW_S3_ACCESS_KEY": "id",
    "TASKFLOW_S3_SECRET_KEY": "key",
}


def test_provisioning_needs_no_more_than_the_chart_grants_and_may_be_repeated(prepared: Server, tmp_path: Path) -> None:
    objects = render("--set", "devServices.enabled=true,workerNamespaces={team-a},workerPool.namespace=team-a")
    job = Provisioner(prepared, tmp_path, objects)
    done = job.run("secrets")
    assert done.returncode == 0, done.stderr
    before = job.secret("taskflow-system", "taskflow-dev-services")
    assert before.keys() >= {"database-url", "redis-url", "redis.conf", "s3-access-key", "s3-secret-key"}
    assert job.run("secrets").returncode == 0
    assert job.secret("taskflow-system", "taskflow-dev-services") == before
    done = job.run("namespaces", **VALUES)
    assert done.returncode == 0, done.stderr
    first = job.secret("team-a", "taskflow-worker")
    done = job.run("namespaces", **VALUES | {"TASKFLOW_REDIS_URL": "redis://:b@r/0"})
    assert done.returncode == 0, done.stderr
    second = job.secret("team-a", "taskflow-worker")
    assert first["TASKFLOW_REDIS_URL"] != second["TASKFLOW_REDIS_URL"]
    pool = json.loads(prepared.kubectl("get", "workerpools.taskflow.dev", "main", "-n", "team-a", "-o", "json").stdout)
    assert pool["spec"]["queues"] == ["default"]
    # Not its own namespace's Secrets to read, and nothing where it was given nothing.
    for verb, resource, namespace in (
        ("get", "secrets/taskflow-dev-services", "taskflow-system"),
        ("list", "secrets", "team-a"),
        ("patch", "secrets/other", "team-a"),
        ("patch", "secrets/taskflow-worker", "team-b"),
        ("patch", "workerpools.taskflow.dev/other", "team-a"),
        ("create", "pods", "taskflow-system"),
    ):
        account = "--as=system:serviceaccount:taskflow-system:taskflow-provision"
        answer = prepared.kubectl("auth", "can-i", verb, resource, "-n", namespace, account)
        assert answer.stdout.strip() == "no", (verb, resource, namespace)


def test_a_workers_secret_of_somebody_else_is_not_overwritten(prepared: Server, tmp_path: Path) -> None:
    prepared.kubectl(
        "create", "secret", "generic", "taskflow-worker", "-n", "team-b", "--from-literal=TASKFLOW_REDIS_URL=x"
    )
    arguments = "devServices.enabled=true,workerNamespaces={team-b},workerPool.namespace=team-b"
    job = Provisioner(prepared, tmp_path, render("--set", arguments))
    before = job.secret("team-b", "taskflow-worker")
    done = job.run("namespaces", **VALUES)
    assert done.returncode == 1
    assert "take team-b out of workerNamespaces" in done.stderr
    assert job.secret("team-b", "taskflow-worker") == before


ROLES = ("view", "edit", "admin")
PERSONAS = [
    ("view", "get", "tasks.taskflow.dev", True),
    ("view", "list", "workerpools.taskflow.dev", True),
    ("view", "create", "tasks.taskflow.dev", False),
    ("edit", "create", "tasks.taskflow.dev", True),
    ("edit", "patch", "tasks.taskflow.dev", True),
    ("edit", "create", "workerpools.taskflow.dev", False),
    ("edit", "patch", "tasks.taskflow.dev/status", False),
    ("admin", "create", "workerpools.taskflow.dev", True),
    ("admin", "patch", "workerpools.taskflow.dev/scale", True),
    ("admin", "patch", "workerpools.taskflow.dev/status", False),
]


@pytest.fixture(scope="module")
def personas(prepared: Server) -> Server:
    roles = [e for e in shape("dev") if e["kind"] == "ClusterRole" and "personas" in str(e["metadata"]["labels"])]
    assert len(roles) == 3
    prepared.apply(roles)
    for role in ROLES:
        prepared.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n", "team-a")

    def joined() -> list[str]:
        """The roles that the controller manager has extended by now."""
        found = [json.loads(prepared.kubectl("get", "clusterrole", role, "-o", "json").stdout) for role in ROLES]
        return [each["metadata"]["name"] for each in found if "taskflow.dev" in str(each["rules"])]

    eventually(joined, lambda roles: len(roles) == len(ROLES))
    return prepared


@pytest.mark.parametrize(("who", "verb", "what", "may"), PERSONAS)
def test_the_roles_of_the_cluster_reach_what_they_should(
    personas: Server, who: str, verb: str, what: str, may: bool
) -> None:
    resource, _, part = what.partition("/")
    arguments = ["auth", "can-i", verb, resource, "-n", "team-a", f"--as={who}"]
    done = personas.kubectl(*arguments, *([f"--subresource={part}"] if part else []))
    assert done.stdout.strip() == ("yes" if may else "no"), done.stderr


def _flow(server: Server, token: str, path: str) -> str:
    """Uid of the FlowSchema under which the API server takes a GET."""
    view = json.loads(server.kubectl("config", "view", "--raw", "--flatten", "-o", "json").stdout)
    cluster = view["clusters"][0]["cluster"]
    trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    request = urllib.request.Request(cluster["server"] + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return str(answer.headers["X-Kubernetes-PF-FlowSchema-UID"])
    except urllib.error.HTTPError as refused:
        with refused:
            return str(refused.headers["X-Kubernetes-PF-FlowSchema-UID"])


def test_the_lease_has_a_flow_of_its_own_and_nothing_else_takes_part_in_it(prepared: Server) -> None:
    objects = [e for e in shape("dev") if e["kind"] in ("FlowSchema", "ServiceAccount")]
    prepared.apply(objects, "--force-conflicts")
    name = "taskflow-lease"
    found: Object = {}

    def schema() -> Object:
        found.update(json.loads(prepared.kubectl("get", "flowschema", name, "-o", "json").stdout))
        return {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", [])}

    # Its level is there.
    eventually(schema, lambda conditions: conditions.get("Dangling") == "False")
    token = prepared.kubectl("create", "token", "taskflow-operator", "-n", "taskflow-system").stdout.strip()
    leases = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/taskflow-operator"
    ours = found["metadata"]["uid"]
    # The API server takes a moment to follow a new schema.
    eventually(lambda: _flow(prepared, token, leases.format("taskflow-system")), lambda uid: uid == ours)
    assert _flow(prepared, token, leases.format("team-a")) != ours
    assert _flow(prepared, token, "/apis/taskflow.dev/v1alpha1/tasks") != ours
    other = prepared.kubectl("create", "token", "taskflow-api", "-n", "taskflow-system").stdout.strip()
    assert _flow(prepared, other, leases.format("taskflow-system")) != ours
