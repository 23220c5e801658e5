import json
import re
import subprocess

import pytest
import yaml

from taskflow_core.domain import naming
from tests.chart.rendering import DEV, ROOT, SHAPES, Object, containers, one, pods, program, render, shape

# A value that must come from a Secret: URLs with a login, keys, passwords.
SENSITIVE = re.compile(r"PASSWORD|TOKEN_KEY|WEBHOOKS_KEY|ACCESS_KEY|SECRET_KEY|DATABASE_URL|REDIS_URL|ROOT_USER")
EVERY = [pytest.param(name, which, id=f"{name}-{which}") for name in SHAPES for which, _ in pods(shape(name))]


def _pod(name: str, which: str) -> Object:
    return dict(pods(shape(name)))[which]


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_every_pod_keeps_to_the_restricted_standard(name: str, which: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a root file system nobody
    writes.
    """
    pod = _pod(name, which)
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {kind for volume in pod.get("volumes", []) for kind in volume} <= {
        "name",
        "emptyDir",
        "configMap",
        "secret",
        "projected",
    }
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_every_container_says_what_it_needs_and_what_it_may_have(name: str, which: str) -> None:
    for container in containers(_pod(name, which)):
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_only_pods_that_speak_to_kubernetes_have_a_token(name: str, which: str) -> None:
    pod = _pod(name, which)
    assert ("serviceAccountName" in pod) != (pod.get("automountServiceAccountToken") is False)


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_what_is_secret_comes_from_a_secret(name: str, which: str) -> None:
    for container in containers(_pod(name, which)):
        for variable in container.get("env", []):
            if SENSITIVE.search(variable["name"]):
                assert variable["valueFrom"].keys() == {"secretKeyRef"}
        for argument in [*container.get("command", []), *container.get("args", [])]:
            assert not re.search(r"pass|token|://\S+@", argument, re.IGNORECASE)


@pytest.mark.parametrize("name", SHAPES)
def test_only_the_provisioner_has_an_administrators_logins(name: str) -> None:
    """And MinIO and Redis of the chart themselves."""
    for which, pod in pods(shape(name)):
        if which.rpartition("-")[2] in ("provisioner", "minio"):
            continue
        assert "administrators" not in str(pod), which
        assert "admin-" not in str(pod), which


@pytest.mark.parametrize("name", SHAPES)
def test_the_release_holds_no_secret(name: str) -> None:
    assert [each["metadata"]["name"] for each in shape(name) if each["kind"] == "Secret"] == []
    for each in shape(name):
        if each["kind"] == "ConfigMap":
            for key, text in each["data"].items():
                if key.endswith(".json"):
                    assert not re.search(r"password|://\S+:\S+@", json.dumps(json.loads(text)), re.IGNORECASE)


@pytest.mark.parametrize("name", SHAPES)
def test_no_role_of_a_component_has_a_wildcard_or_reads_secrets(name: str) -> None:
    for each in shape(name):
        for rule in each.get("rules", []) if each["kind"] in ("Role", "ClusterRole") else []:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            if "secrets" in rule["resources"] and "provisioner" in each["metadata"]["name"]:
                # A list or a watch of this name too, which shows no other.
                assert rule["resourceNames"] == [naming.WORKER_SECRET]
            elif "secrets" in rule["resources"]:
                assert each["kind"] == "Role"
                assert rule["verbs"] == ["create"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert "pods/exec" not in rule["resources"]


EXCUSED = {
    "container-resources": "a limit of CPU wastes idle time of the node; the memory limit is required above",
    "container-ephemeral-storage-request-and-limit": "the root file system is read-only, and /tmp does not grow",
    "container-image-pull-policy": "a version is never built again, and an image loaded into a node cannot be pulled",
    "pod-networkpolicy": "a value, off by default, since it needs your addresses; tested below",
    "networkpolicy-targets-pod": "the operator creates the workers' pods; the other policies are tested below",
    "deployment-replicas": "one is enough to try it; the shapes `production` and `gateway` have two",
    "deployment-has-poddisruptionbudget": "with one replica it would only hold up the drain of a node",
    "statefulset-has-poddisruptionbudget": "likewise; the development services are one pod each",
    "deployment-strategy": "of the provisioner, which is one: two would rotate a login twice",
    "deployment-has-host-podantiaffinity": "they are spread by topologySpreadConstraints, which it does not look at",
    "statefulset-has-host-podantiaffinity": "one pod each",
    "statefulset-has-servicename": "nobody asks for the name of the one pod, so a Service with an address will do",
    "container-security-context-user-group-id": "999 is the user of the official images; runAsNonRoot is tested above",
    "pod-probes": "the notifier has no port; that it stands still is told by its lag, for which there is an alert",
}
"""Checks of kube-score that do not hold for this chart, and why."""


@pytest.mark.parametrize("name", SHAPES)
def test_kube_score_finds_nothing_that_is_not_excused(name: str) -> None:
    objects = [each for each in shape(name) if each["kind"] != "CustomResourceDefinition"]
    ignored = [argument for check in EXCUSED for argument in ("--ignore-test", check)]
    command = [str(program("kube-score")), "score", "--output-format", "ci", *ignored, "-"]
    text = yaml.safe_dump_all(objects)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))]
    assert found == []
    assert "[OK]" in done.stdout


def test_only_workers_and_our_own_pods_reach_the_development_services() -> None:
    objects = render(*DEV, "--set", "networkPolicy.enabled=true,workerNamespaces={default,team}")
    found = [each for each in objects if each["kind"] == "NetworkPolicy"]
    policies = {e["metadata"]["name"]: e["spec"] for e in found if e["metadata"]["namespace"] == "taskflow-system"}
    callers = {name: policy["ingress"][0].get("from") for name, policy in policies.items()}
    ours = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "taskflow", "app.kubernetes.io/instance": "taskflow"}}
    }
    assert callers["taskflow-postgresql"] == [ours]
    for name in ("taskflow-redis", "taskflow-minio"):
        own, labelled, listed = callers[name]
        assert own == ours
        for workers in (labelled, listed):
            assert workers["podSelector"] == {"matchLabels": {"app.kubernetes.io/managed-by": "taskflow-operator"}}
        assert labelled["namespaceSelector"] == {"matchLabels": {naming.LABEL_WORKERS: naming.WORKERS_ENABLED}}
        assert listed["namespaceSelector"]["matchExpressions"][0]["values"] == ["default", "team"]
    # Each policy is about pods that there are, at a port that they have.
    for name, policy in policies.items():
        (workload,) = [
            e for e in objects if e["kind"] in ("Deployment", "StatefulSet") and e["metadata"]["name"] == name
        ]
        assert (
            policy["podSelector"]["matchLabels"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        )
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        assert policy["ingress"][0]["ports"][0]["port"] == container["ports"][0]["containerPort"]


def test_workers_are_called_by_nobody_and_reach_redis_and_s3_only() -> None:
    objects = render(*DEV, "--set", "networkPolicy.enabled=true,workerNamespaces={default,team}")
    policies = [e for e in objects if e["kind"] == "NetworkPolicy" and e["metadata"]["namespace"] != "taskflow-system"]
    assert [each["metadata"]["namespace"] for each in policies] == ["default", "team"]
    for policy in policies:
        spec = policy["spec"]
        assert spec["podSelector"] == {"matchLabels": {naming.LABEL_MANAGED_BY: naming.FIELD_MANAGER}}
        assert (spec["policyTypes"], spec.get("ingress")) == (["Ingress", "Egress"], None)
        dns, *services = spec["egress"]
        assert {port["port"] for port in dns["ports"]} == {53}
        # Exactly the pods whose own policies let workers in.
        ports = {}
        for service in services:
            (there,) = service["to"]
            assert there["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "taskflow-system"}}
            labels = there["podSelector"]["matchLabels"]
            (container,) = one(objects, "StatefulSet", f"taskflow-{labels['app.kubernetes.io/component']}")["spec"][
                "template"
            ]["spec"]["containers"]
            assert [port["port"] for port in service["ports"]] == [container["ports"][0]["containerPort"]]
            ports[labels["app.kubernetes.io/component"]] = container["ports"][0]["containerPort"]
        assert ports == {"redis": 6379, "minio": 9000}


@pytest.mark.parametrize("name", SHAPES)
def test_every_egress_says_where_to(name: str) -> None:
    for policy in (each for each in shape(name) if each["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            assert rule["to"], policy["metadata"]["name"]


def test_workers_reach_services_of_your_own_where_you_say_they_are() -> None:
    policies = [each for each in shape("production") if each["metadata"]["name"] == "taskflow-workers"]
    assert [each["metadata"]["namespace"] for each in policies] == ["team-a", "team-b"]
    for policy in policies:
        _, redis, objects, handlers = policy["spec"]["egress"]
        assert redis == {"ports": [{"protocol": "TCP", "port": 6380}], "to": [{"ipBlock": {"cidr": "10.20.0.7/32"}}]}
        assert objects == {"ports": [{"protocol": "TCP", "port": 443}], "to": [{"ipBlock": {"cidr": "10.30.0.0/24"}}]}
        assert handlers["to"][0]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "models"}}


def _rules(objects: list[Object], kind: str, name: str) -> set[str]:
    """What a role grants, a word for each; Leases apart, which the chart grants by name and in one namespace."""
    (role,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return {
        f"{verb} {group}/{resource}"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if resource != "leases"
    }


@pytest.mark.parametrize("component", ["operator", "api", "provisioner"])
def test_a_component_may_do_what_it_may_in_local_mode_where_the_end_to_end_tests_run_it(component: str) -> None:
    local = list(yaml.safe_load_all((ROOT / "local/taskflow_local/rbac.yaml").read_text()))
    name = f"taskflow-{component}"
    assert _rules(list(shape("dev")), "ClusterRole", name) == _rules(local, "ClusterRole", name)
