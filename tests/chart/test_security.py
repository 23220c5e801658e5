import json
import re

import pytest

from tests.chart.rendering import SHAPES, Object, containers, pods, shape

# A value that must come from a Secret: URLs with a login, keys, passwords.
SENSITIVE = re.compile(r"PASSWORD|TOKEN_KEY|ACCESS_KEY|SECRET_KEY|DATABASE_URL|REDIS_URL|ROOT_USER")
EVERY = [pytest.param(name, which, id=f"{name}-{which}") for name in SHAPES for which, _ in pods(shape(name))]


def _pod(name: str, which: str) -> Object:
    return dict(pods(shape(name)))[which]


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_every_pod_keeps_to_the_restricted_standard(name: str, which: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a root file system nobody writes."""
    pod = _pod(name, which)
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {kind for volume in pod.get("volumes", []) for kind in volume} <= {"name", "emptyDir", "configMap", "secret"}
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
            if "secrets" in rule["resources"]:
                assert each["kind"] == "Role"
                assert set(rule["verbs"]) <= {"create", "patch"}
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert "pods/exec" not in rule["resources"]


def test_only_workers_and_our_own_pods_reach_the_development_services() -> None:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in shape("production") if each["kind"] == "NetworkPolicy"
    }
    assert set(policies) == {"taskflow-api", "taskflow-operator"}
