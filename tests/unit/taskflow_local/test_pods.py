from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskflow_local.kube import Object
from taskflow_local.node.pods import (
    Base,
    ConfigError,
    Reference,
    Sources,
    environment,
    expand,
    folder_name,
    process,
    references,
)

BASE = Base(path="/venv/bin:/bin", home=Path("/pods/x/home"), node_name="local", extra={"PYTHONPATH": "/src"})
SECRET = Reference("Secret", "keys")
CONFIG = Reference("ConfigMap", "conf")


def make_pod(**container: Any) -> Object:
    return {
        "metadata": {"name": "web-1", "namespace": "team", "uid": "u-1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "command": ["python"], **container}]},
    }


def run(pod: Object, sources: Sources | None = None) -> Any:
    return process(pod, pod["spec"]["containers"][0], sources or {}, BASE)


def env_of(pod: Object, sources: Sources | None = None) -> dict[str, str]:
    return environment(pod, pod["spec"]["containers"][0], sources or {}, BASE)


def test_a_container_becomes_its_command_and_arguments_in_a_private_home() -> None:
    spec = run(make_pod(command=["python", "-m"], args=["app", "--port=1"]))
    assert spec.argv == ("python", "-m", "app", "--port=1")
    assert spec.cwd == Path("/pods/x/home")
    assert spec.env == {
        "LANG": "C.UTF-8",
        "PYTHONPATH": "/src",
        "PATH": "/venv/bin:/bin",
        "HOME": "/pods/x/home",
        "TMPDIR": "/pods/x/home",
    }
    assert run(make_pod(workingDir="/srv")).cwd == Path("/srv")


def test_a_container_without_a_command_is_refused_because_there_are_no_images() -> None:
    with pytest.raises(ConfigError, match="no images, so it needs spec"):
        run(make_pod(command=[]))


def test_init_containers_are_refused_and_not_ignored() -> None:
    pod = make_pod()
    pod["spec"]["initContainers"] = [{"name": "init"}]
    with pytest.raises(ConfigError, match="initContainers"):
        run(pod)


def test_env_wins_over_env_from_and_later_over_earlier() -> None:
    pod = make_pod(
        envFrom=[{"configMapRef": {"name": "conf"}}, {"secretRef": {"name": "keys"}, "prefix": "S_"}],
        env=[{"name": "A", "value": "env"}, {"name": "PATH", "value": "/own"}, {"name": "EMPTY"}],
    )
    env = env_of(pod, {CONFIG: {"A": "conf", "B": "conf"}, SECRET: {"A": "secret"}})
    assert (env["A"], env["B"], env["S_A"], env["PATH"], env["EMPTY"]) == ("env", "conf", "secret", "/own", "")


def test_values_from_secrets_config_maps_and_fields_are_resolved() -> None:
    sources: list[tuple[str, Object]] = [
        ("KEY", {"secretKeyRef": {"name": "keys", "key": "k"}}),
        ("CONF", {"configMapKeyRef": {"name": "conf", "key": "c"}}),
        ("NAME", {"fieldRef": {"fieldPath": "metadata.name"}}),
        ("NAMESPACE", {"fieldRef": {"fieldPath": "metadata.namespace"}}),
        ("UID", {"fieldRef": {"fieldPath": "metadata.uid"}}),
        ("NODE", {"fieldRef": {"fieldPath": "spec.nodeName"}}),
        ("IP", {"fieldRef": {"fieldPath": "status.podIP"}}),
        ("APP", {"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
        ("MAYBE", {"secretKeyRef": {"name": "keys", "key": "absent", "optional": True}}),
    ]
    pod = make_pod(env=[{"name": name, "valueFrom": source} for name, source in sources])
    env = env_of(pod, {SECRET: {"k": "v1"}, CONFIG: {"c": "v2"}})
    assert [env.get(name) for name, _ in sources] == [
        "v1",
        "v2",
        "web-1",
        "team",
        "u-1",
        "local",
        "127.0.0.1",
        "web",
        None,
    ]
    assert references(pod["spec"]["containers"][0]) == {SECRET, CONFIG}


@pytest.mark.parametrize(
    ("container", "sources", "message"),
    [
        ({"envFrom": [{"secretRef": {"name": "keys"}}]}, {SECRET: None}, 'secret "keys" not found'),
        ({"envFrom": [{"configMapRef": {"name": "conf"}}]}, {CONFIG: None}, 'configmap "conf" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}]},
            {SECRET: {}},
            "couldn't find key k in Secret keys",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]},
            {},
            r"found \['resourceFieldRef'\]",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]},
            {},
            "found status.phase",
        ),
    ],
)
def test_missing_and_unknown_sources_are_named(container: Object, sources: Sources, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(make_pod(**container), sources)


def test_a_missing_optional_secret_is_no_error() -> None:
    pod = make_pod(envFrom=[{"secretRef": {"name": "keys", "optional": True}}])
    assert set(env_of(pod, {SECRET: None})) == {"LANG", "PYTHONPATH", "PATH", "HOME", "TMPDIR"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$$(A)", "$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$$$(A)", "$1"),
    ],
)
def test_references_expand_as_the_pod_api_says(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def test_arguments_and_later_variables_see_earlier_ones() -> None:
    pod = make_pod(args=["$(URL)"], env=[{"name": "HOST", "value": "h"}, {"name": "URL", "value": "http://$(HOST)"}])
    assert run(pod).argv == ("python", "http://h")


def test_a_folder_name_is_unique_and_never_too_long_for_a_file_system() -> None:
    assert folder_name(make_pod()) == "team_web-1_u-1"
    pod = make_pod()
    pod["metadata"] |= {"name": "n" * 253, "namespace": "s" * 63, "uid": "u" * 36}
    assert len(folder_name(pod)) < 255


def test_the_folder_for_temporary_files_may_be_another_than_the_home() -> None:
    assert BASE.environment()["TMPDIR"] == "/pods/x/home"
    assert replace(BASE, temporary=Path("/tmp-of-x")).environment()["TMPDIR"] == "/tmp-of-x"
