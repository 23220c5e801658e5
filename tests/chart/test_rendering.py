import base64
import gzip
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, DEV, ROOT, SHAPES, Object, helm, one, render, shape

SNAPSHOTS = Path(__file__).with_name("snapshots")
RELEASE_SECRET_BYTES = 1024 * 1024


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_renders_to_its_snapshot(name: str) -> None:
    """CHART_SNAPSHOTS=write writes them anew; read the difference before it is committed."""
    objects = [each for each in shape(name) if each["kind"] != "CustomResourceDefinition"]
    objects.sort(key=lambda each: (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]))
    text = yaml.safe_dump_all(objects, sort_keys=True, width=120)
    path = SNAPSHOTS / f"{name}.yaml"
    if os.environ.get("CHART_SNAPSHOTS") == "write":
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_lints_without_a_warning(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{name}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SHAPES)
def test_helm_4_renders_the_same_and_lints_without_a_warning(name: str) -> None:
    values = ("--values", str(CHART / "ci" / f"{name}-values.yaml"))
    done = helm("template", "taskflow", str(CHART), "--namespace", "taskflow-system", *values, which="helm4")
    assert done.returncode == 0, done.stderr

    def order(each: Object) -> tuple[str, str, str]:
        return each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]

    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert sorted(found, key=order) == sorted(shape(name), key=order)
    done = helm("lint", "--strict", str(CHART), *values, which="helm4")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_crds_are_those_of_the_repository_and_stay_when_the_chart_goes() -> None:
    for path in (CHART.parents[1] / "crds").glob("*.yaml"):
        source = yaml.safe_load(path.read_text())
        found = one(shape("dev"), "CustomResourceDefinition", source["metadata"]["name"])
        assert found["spec"] == source["spec"]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_crds_may_go_with_the_chart_when_that_is_asked_for() -> None:
    crds = [each for each in render(*DEV, "--set", "crds.keep=false") if each["kind"] == "CustomResourceDefinition"]
    assert [each["metadata"]["annotations"].get("helm.sh/resource-policy") for each in crds] == [None] * 4


def test_the_longest_names_fit() -> None:
    for each in render(*DEV, release="a" * 53):
        # A pod of a StatefulSet or Job is named after it, with a suffix, in a label of 63 characters.
        assert len(each["metadata"]["name"]) <= 63, each["metadata"]["name"]
        for value in each["metadata"].get("labels", {}).values():
            assert len(value) <= 63, value


def test_nothing_that_selects_pods_changes_with_the_version() -> None:
    for each in shape("dev"):
        if each["kind"] in ("Deployment", "StatefulSet"):
            keys = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
            assert set(each["spec"]["selector"]["matchLabels"]) == keys


def test_no_two_workloads_select_the_same_pods() -> None:
    selectors = [
        tuple(sorted(each["spec"]["selector"]["matchLabels"].items()))
        for each in shape("dev")
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert len(set(selectors)) == len(selectors)


def _secrets(objects: list[Object], workload: str) -> dict[str, dict[str, Any]]:
    (container,) = one(objects, "Deployment", workload)["spec"]["template"]["spec"]["containers"]
    sources = {each["name"]: each.get("valueFrom", {}) for each in container["env"]}
    return {name: source["secretKeyRef"] for name, source in sources.items() if "secretKeyRef" in source}


@pytest.mark.parametrize("services", [DEV, ("--values", str(CHART / "ci" / "external-values.yaml"))])
def test_limits_and_cache_may_have_a_redis_of_their_own(services: tuple[str, ...]) -> None:
    shared = render(*services)
    for_both = ("TASKFLOW_LIMITS_URL", "TASKFLOW_CACHE_URL")
    api, operator = _secrets(shared, "taskflow-api"), _secrets(shared, "taskflow-operator")
    assert all(api[name] == api["TASKFLOW_API_BROKER_URL"] for name in for_both)
    assert operator["TASKFLOW_CACHE_URL"] == operator["TASKFLOW_REDIS_URL"]
    own = {"name": "limits", "key": "url"}
    apart = render(*services, "--set", "cacheRedis.existingSecret=limits,cacheRedis.key=url")
    assert _secrets(apart, "taskflow-api") == api | dict.fromkeys(for_both, own)
    assert _secrets(apart, "taskflow-operator") == operator | {"TASKFLOW_CACHE_URL": own}


def test_another_image_is_another_migration_and_the_same_one_is_not() -> None:
    def job(*arguments: str) -> str:
        external = ("--values", str(CHART / "ci" / "external-values.yaml"))
        return str(one(render(*external, *arguments), "Job", "taskflow-migrate")["metadata"]["name"])

    assert job() == job("--set", "api.replicas=3")
    assert job() != job("--set", "operator.image.tag=next")


def test_an_autoscaler_has_the_number_of_pods_for_itself() -> None:
    assert "replicas" not in one(shape("production"), "Deployment", "taskflow-api")["spec"]
    assert one(shape("gateway"), "Deployment", "taskflow-api")["spec"]["replicas"] == 2


def test_a_budget_exists_only_where_it_would_not_block_a_node() -> None:
    def budgets(name: str) -> list[str]:
        return [each["metadata"]["name"] for each in shape(name) if each["kind"] == "PodDisruptionBudget"]

    assert budgets("external") == []
    assert budgets("production") == ["taskflow-api", "taskflow-operator"]
    assert budgets("gateway") == ["taskflow-api"]


def test_each_operator_pod_stands_for_leadership_under_its_own_name() -> None:
    (container,) = one(shape("production"), "Deployment", "taskflow-operator")["spec"]["template"]["spec"]["containers"]
    (identity,) = [each for each in container["env"] if each["name"] == "TASKFLOW_LEADER_IDENTITY"]
    assert identity["valueFrom"] == {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}


def test_images_come_from_the_registry_that_was_named_and_a_digest_wins() -> None:
    (container,) = one(shape("production"), "Deployment", "taskflow-operator")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example.com/team/taskflow-operator@sha256:0123")
    (container,) = one(shape("production"), "Deployment", "taskflow-api")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com/team/taskflow-api:0.1.0"


def test_two_renderings_are_the_same_so_that_gitops_sees_no_drift() -> None:
    assert render(*DEV) == render(*DEV)


def test_the_chart_is_far_below_what_a_release_may_be() -> None:
    done = helm("template", "taskflow", str(CHART), *DEV)
    # Helm keeps the chart's files, in base64, and the manifest; all of it compressed, and in base64 again.
    files = b"".join(base64.b64encode(path.read_bytes()) for path in sorted(CHART.rglob("*")) if path.is_file())
    stored = base64.b64encode(gzip.compress(files + done.stdout.encode()))
    assert len(stored) < RELEASE_SECRET_BYTES / 2


def test_chart_images_and_packages_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (project, project)
    assert f"ARG VERSION={project}\n" in (ROOT / "Dockerfile").read_text()


MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


def _checks_of_tasks(*arguments: str) -> set[str]:
    found = render(*DEV, *arguments)
    return {f"{e['kind']}/{e['metadata']['name']}" for e in found if "templates" in str(e["metadata"].get("labels"))}


def test_the_policies_for_templates_are_those_of_the_repository() -> None:
    found = render(*DEV, "--api-versions", MUTATING, "--api-versions", f"{MUTATING}Binding")
    for path in (CHART.parents[1] / "policies").glob("*.yaml"):
        for source in yaml.safe_load_all(path.read_text()):
            [rendered] = [
                each
                for each in found
                if each["kind"] == source["kind"] and each["metadata"]["name"] == source["metadata"]["name"]
            ]
            assert rendered["spec"] == source["spec"]


def test_policies_for_templates_are_left_out_where_they_are_not_wanted_or_not_served() -> None:
    assert _checks_of_tasks("--set", "templates.enabled=false") == set()
    names = {each.partition("/")[2] for each in _checks_of_tasks()}
    assert names == {"taskflow-arguments", "taskflow-deprecated", "taskflow-templates"}
