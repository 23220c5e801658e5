from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_core.errors import Forbidden
from taskflow_core.kube.client import KubeClient
from taskflow_provisioner.cluster import Cluster, Found
from taskflow_provisioner.logins import Login, S3Key
from taskflow_provisioner.worker_secret import manifest
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


class Account:
    """Acts as a ServiceAccount of a rendered chart, with the chart's roles and nothing else."""

    def __init__(self, server: Server, folder: Path, objects: list[Object], name: str) -> None:
        self.server = server
        kinds = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap")
        server.apply([e for e in objects if e["kind"] in kinds and "hook" not in str(e["metadata"].get("annotations"))])
        token = server.kubectl("create", "token", name, "-n", "taskflow-system").stdout.strip()
        view = server.kubectl("config", "view", "--raw", "--flatten", "-o", "json").stdout
        config: dict[str, Any] = json.loads(view)
        config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def provision(self, action: str, plan: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "taskflow_operator.install.provision", action, str(plan)]
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        found = self.server.kubectl("get", "secret", name, "-n", namespace, "-o", "json")
        assert found.returncode == 0, found.stderr
        return dict(json.loads(found.stdout)["data"])


def test_provisioning_needs_no_more_than_the_chart_grants_and_may_be_repeated(prepared: Server, tmp_path: Path) -> None:
    objects = render("--set", "devServices.enabled=true,workerNamespaces={team-a},workerPool.namespace=team-a")
    job, plan = Account(prepared, tmp_path, objects, "taskflow-provision"), tmp_path / "plan.json"
    plan.write_text(one(objects, "ConfigMap", "taskflow-provision")["data"]["plan.json"])
    done = job.provision("secrets", plan)
    assert done.returncode == 0, done.stderr
    before = job.secret("taskflow-system", "taskflow-dev-services")
    # What the pods name.
    for _, pod in pods(objects):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            sources = [each.get("valueFrom", {}).get("secretKeyRef", {}) for each in container.get("env", ())]
            keys = {each["key"] for each in sources if each.get("name") == "taskflow-dev-services"}
            assert keys <= before.keys()
    assert job.provision("secrets", plan).returncode == 0
    assert job.secret("taskflow-system", "taskflow-dev-services") == before
    for _ in range(2):
        done = job.provision("pools", plan)
        assert done.returncode == 0, done.stderr
    pool = json.loads(prepared.kubectl("get", "workerpools.taskflow.dev", "main", "-n", "team-a", "-o", "json").stdout)
    assert pool["spec"]["queues"] == ["default"]
    # Not its own namespace's Secrets to read, and nothing where it was given nothing.
    for verb, resource, namespace in (
        ("get", "secrets/taskflow-dev-services", "taskflow-system"),
        ("list", "secrets", "team-a"),
        ("patch", "secrets/taskflow-worker", "team-a"),
        ("patch", "workerpools.taskflow.dev/other", "team-a"),
        ("create", "pods", "taskflow-system"),
    ):
        account = "--as=system:serviceaccount:taskflow-system:taskflow-provision"
        answer = prepared.kubectl("auth", "can-i", verb, resource, "-n", namespace, account)
        assert answer.stdout.strip() == "no", (verb, resource, namespace)


async def test_where_only_some_namespaces_are_watched_the_provisioner_needs_rights_only_there(
    prepared: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("--values", str(CHART / "ci" / "gateway-values.yaml"))
    where = "watchNamespaces={team-a,team-b},workerNamespaces={team-b},workerPool.namespace=team-b"
    # Under another name than in local mode, whose API server this is.
    objects = [e for e in render(*values, "--set", where, release="a") if "provisioner" in e["metadata"]["name"]]
    assert "ClusterRole" not in {each["kind"] for each in objects}
    account = Account(prepared, tmp_path, objects, "a-taskflow-provisioner")
    monkeypatch.setenv("KUBECONFIG", str(account.kubeconfig))
    kube = await KubeClient.connect(connections=2)
    login = Login("password", S3Key("id", "key", "shared"), datetime(2026, 1, 1, tzinfo=UTC))
    try:
        with pytest.raises(Forbidden):
            await Cluster(kube, {"gone"}, labelled=False).look()
        cluster = Cluster(kube, {"team-b", "gone"}, labelled=False)
        assert await cluster.look() == Found(frozenset({"team-b"}), {})
        await cluster.apply_secret(manifest("team-b", {"A": "b"}, login))
        assert (await cluster.look()).secrets["team-b"]["data"] == {"A": "Yg=="}
        assert await cluster.announce("team-b", login.since, "now") == 0
        with pytest.raises(Forbidden):
            await cluster.apply_secret(manifest("team-a", {"A": "b"}, login))
        with pytest.raises(Forbidden):
            await kube.request("GET", "/api/v1/namespaces/team-b/secrets/other")
    finally:
        await kube.close()


ROLES = ("view", "edit", "admin")
PERSONAS = [
    ("view", "get", "tasks.taskflow.dev", True),
    ("view", "list", "workerpools.taskflow.dev", True),
    ("view", "watch", "taskschedules.taskflow.dev", True),
    ("view", "create", "tasks.taskflow.dev", False),
    ("edit", "create", "tasks.taskflow.dev", True),
    ("edit", "patch", "tasks.taskflow.dev", True),
    ("edit", "create", "taskschedules.taskflow.dev", True),
    ("edit", "deletecollection", "taskschedules.taskflow.dev", True),
    ("edit", "patch", "taskschedules.taskflow.dev/status", False),
    ("edit", "create", "workerpools.taskflow.dev", False),
    ("edit", "patch", "tasks.taskflow.dev/status", False),
    ("view", "list", "tasktemplates.taskflow.dev", True),
    ("edit", "create", "tasktemplates.taskflow.dev", False),
    ("admin", "create", "tasktemplates.taskflow.dev", True),
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
