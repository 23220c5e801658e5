"""What reaches an installation when values, Secrets or the cluster change, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, DEV, SHAPES, Object, helm, one, render, shape
from tests.chart.server import NOT_SERVED, Server

pytestmark = pytest.mark.integration
NAMESPACE = "upgrades"
RELEASE = "taskflow-two"
"""Not as in local mode, whose API server this is."""
EXTERNAL = str(CHART / "ci" / "external-values.yaml")
REACHING = (
    "commonLabels.team=one",
    "imagePullSecrets[0].name=registry",
    "global.imageRegistry=registry.example.com",
    "operator.image.tag=next",
    "operator.image.digest=sha256:" + "0" * 64,
    "operator.image.pullPolicy=Always",
    "nameOverride=flow",
    "migrations.resources.limits.memory=512Mi",
    "migrations.activeDeadlineSeconds=600",
    "podSecurityContext.runAsUser=10002",
    "containerSecurityContext.capabilities.drop[0]=NET_RAW",
    "workerPool.spec.concurrency=3",
    "operator.tokenKey.existingSecret=key",
)
"""Values that reach the template of a Job."""


@pytest.fixture(scope="module")
def prepared(server: Server) -> Server:
    server.namespace(NAMESPACE)
    server.apply([e for e in shape("dev") if e["kind"] == "CustomResourceDefinition"], "--force-conflicts")
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return server


def rendered(*arguments: str, values: tuple[str, ...] = DEV) -> list[Object]:
    """The objects, in this test's namespace."""
    return render(*values, *arguments, "--namespace", NAMESPACE)


def chart_of_another_version(folder: Path) -> Path:
    """The same chart, released again."""
    for path in CHART.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(CHART)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(CHART)).write_bytes(path.read_bytes())
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": "9.9.9"}))
    return folder


def jobs(objects: list[Object]) -> list[Object]:
    return [each for each in objects if each["kind"] == "Job"]


@pytest.mark.parametrize("value", [*REACHING, "chart"])
def test_a_value_that_reaches_a_job_makes_another_job(prepared: Server, value: str, tmp_path: Path) -> None:
    before = jobs(rendered())
    if value == "chart":
        other = chart_of_another_version(tmp_path)
        done = helm("template", "taskflow", str(other), "--namespace", NAMESPACE, *DEV)
        assert done.returncode == 0, done.stderr
        after = jobs([each for each in yaml.safe_load_all(done.stdout) if each])
    else:
        after = jobs(rendered("--set", value))
    assert [each["spec"] for each in before] != [each["spec"] for each in after], "it reaches no Job"
    prepared.apply(before)
    prepared.apply(after)
    prepared.apply(before)
    prepared.kubectl("delete", "jobs", "--all", "-n", NAMESPACE, "--wait")


def test_the_database_of_a_migration_is_part_of_its_name() -> None:
    names = {
        one(rendered(*more, values=("--values", EXTERNAL)), "Job", "taskflow-migrate")["metadata"]["name"]
        for more in ((), ("--set", "externalDatabase.existingSecret=other"), ("--set", "externalDatabase.key=other"))
    }
    assert len(names) == 3


@pytest.mark.parametrize("name", SHAPES)
def test_two_field_managers_agree_on_the_same_rendering(prepared: Server, name: str) -> None:
    done = helm("template", "managers", str(CHART), "-n", NAMESPACE, "-f", str(CHART / "ci" / f"{name}-values.yaml"))
    assert done.returncode == 0, done.stderr
    # In one namespace: those of others are not there.
    objects = [
        each
        for each in yaml.safe_load_all(done.stdout)
        if each and each["metadata"].get("namespace") == NAMESPACE and each["kind"] not in NOT_SERVED
    ]
    prepared.apply(objects, "--field-manager=first", "--force-conflicts")
    prepared.apply(objects, "--field-manager=second")


class Helm:
    """Helm with access to the server, which runs no pods: nothing is waited for."""

    def __init__(self, server: Server) -> None:
        self._kubeconfig = server.stack.env()["KUBECONFIG"]

    def run(self, *arguments: str) -> str:
        done = helm(*arguments, "--namespace", NAMESPACE, kubeconfig=self._kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def manifest(self) -> list[Object]:
        found = self.run("get", "manifest", RELEASE)
        return [each for each in yaml.safe_load_all(found) if each]


@pytest.fixture
def release(prepared: Server) -> Iterator[Helm]:
    """Of what this API server has: the definitions of the CRDs are there already."""
    release = Helm(prepared)
    yield release
    release.run("uninstall", RELEASE, "--ignore-not-found")
    prepared.kubectl("delete", "jobs,secrets,statefulsets,pvc", "--all", "-n", NAMESPACE)


CHART_ONLY = ("--set", "crds.enabled=false", "--set", "flowSchema.enabled=false", "--set", "rbac.aggregate=false")


def _names(server: Server) -> dict[str, Any]:
    found = json.loads(server.kubectl("get", "jobs", "-n", NAMESPACE, "-o", "json").stdout)["items"]
    return {each["metadata"]["name"]: each for each in found}


def test_an_installation_after_a_failed_one_takes_no_former_job_for_done(prepared: Server, release: Helm) -> None:
    release.run("install", RELEASE, str(CHART), *DEV, *CHART_ONLY)
    left = jobs(release.manifest())
    release.run("uninstall", RELEASE)
    # As a failed upgrade leaves them: of this name, with the annotations of the release, and not in its manifest.
    owned = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": NAMESPACE}
    for each in left:
        each["metadata"]["annotations"] |= owned
    prepared.apply(left)
    former = {each["metadata"]["uid"] for each in _names(prepared).values()}
    assert len(former) == 2
    release.run("install", RELEASE, str(CHART), *DEV, *CHART_ONLY)
    ours = [_names(prepared)[each["metadata"]["name"]]["metadata"]["uid"] for each in jobs(release.manifest())]
    assert len(ours) == 2
    assert former.isdisjoint(ours)
    # And they go by themselves.
    assert all(each["spec"]["ttlSecondsAfterFinished"] for each in _names(prepared).values())


def _template(objects: list[Object], name: str) -> Object:
    found: Object = one(objects, "Deployment", name)["spec"]["template"]
    return found


def _secret(name: str, **values: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": values,
    }


def test_an_upgrade_after_a_change_of_a_secret_replaces_the_pods_that_have_it(prepared: Server, release: Helm) -> None:
    values = yaml.safe_load(Path(EXTERNAL).read_text())
    names = {key: found["existingSecret"] for key, found in values.items() if "existingSecret" in found}
    prepared.apply([_secret(name, key="one") for name in sorted(set(names.values()))])
    arguments = (str(CHART), "--values", EXTERNAL, *CHART_ONLY)
    release.run("install", RELEASE, *arguments)

    def templates() -> dict[str, Object]:
        return {name: _template(release.manifest(), f"{RELEASE}-{name}") for name in ("operator", "api", "provisioner")}

    def changed(secret: str | None) -> set[str]:
        before = templates()
        if secret is not None:
            prepared.apply([_secret(secret, key="two")])
        release.run("upgrade", RELEASE, *arguments)
        return {name for name, template in templates().items() if template != before[name]}

    assert changed(None) == set()
    assert changed(names["externalDatabase"]) == {"operator", "api"}
    assert changed(names["externalRedis"]) == {"operator", "api", "provisioner"}
    assert changed(names["externalS3"]) == {"api", "provisioner"}
    assert changed(names["provisioner"]) == {"provisioner"}
    assert changed(None) == set()


def _claims(objects: list[Object]) -> set[bool]:
    return {"volumeClaimTemplates" in each["spec"] for each in objects if each["kind"] == "StatefulSet"}


def test_development_services_have_volumes_where_there_is_a_default_storage_class(
    prepared: Server, release: Helm
) -> None:
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
    }
    assert _claims(rendered()) == {True}, "without access to the cluster"
    said = release.run("install", RELEASE, str(CHART), *DEV, *CHART_ONLY)
    assert "They have no volume, because the cluster has no default StorageClass" in said
    assert _claims(release.manifest()) == {False}
    prepared.apply([storage])
    try:
        # What a StatefulSet claims cannot be changed, so an upgrade leaves it.
        release.run("upgrade", RELEASE, str(CHART), *DEV, *CHART_ONLY)
        assert _claims(release.manifest()) == {False}
        release.run("uninstall", RELEASE, "--wait")
        said = release.run("install", RELEASE, str(CHART), *DEV, *CHART_ONLY)
        assert "They have no volume" not in said
        assert _claims(release.manifest()) == {True}
    finally:
        prepared.kubectl("delete", "storageclass", "standard")
    release.run("upgrade", RELEASE, str(CHART), *DEV, *CHART_ONLY)
    assert _claims(release.manifest()) == {True}


@pytest.mark.parametrize(("value", "claims"), [("true", True), ("false", False)])
def test_volumes_may_be_chosen_without_looking(release: Helm, value: str, claims: bool) -> None:
    chosen = ("--set", f"devServices.persistence.enabled={value}")
    release.run("install", RELEASE, str(CHART), *DEV, *CHART_ONLY, *chosen)
    assert _claims(release.manifest()) == {claims}
