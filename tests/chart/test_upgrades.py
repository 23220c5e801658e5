"""What reaches an installation when values, Secrets or the cluster change, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    done = helm(
        "template", f"managers-{name}", str(CHART), "-n", NAMESPACE, "-f", str(CHART / "ci" / f"{name}-values.yaml")
    )
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
    """Helm as it renders with access to the server. Nothing is installed: this server runs no pods."""

    def __init__(self, server: Server) -> None:
        self._kubeconfig = server.stack.env()["KUBECONFIG"]

    def rendered(self, *arguments: str) -> list[Object]:
        return [each for each in yaml.safe_load_all(self._run("template", *arguments)) if each]

    def notes(self, *arguments: str) -> str:
        return self._run("install", *arguments, "--set", "crds.enabled=false").partition("NOTES:")[2]

    def _run(self, command: str, *arguments: str) -> str:
        where = (RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=server")
        done = helm(command, *where, *arguments, kubeconfig=self._kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def chart(prepared: Server) -> Iterator[Helm]:
    yield Helm(prepared)
    prepared.kubectl("delete", "jobs,secrets,statefulsets", "--all", "-n", NAMESPACE)


def _names(objects: list[Object]) -> set[str]:
    return {each["metadata"]["name"] for each in jobs(objects)}


def test_an_installation_after_a_failed_one_takes_no_former_job_for_done(prepared: Server, chart: Helm) -> None:
    first = chart.rendered(*DEV)
    assert chart.rendered(*DEV) == first
    # As a failed upgrade leaves them, which are in the manifest of no release.
    prepared.apply(jobs(first))
    again = chart.rendered(*DEV)
    assert len(_names(again)) == 2
    assert _names(again).isdisjoint(_names(first))
    # And they go by themselves.
    assert all(each["spec"]["ttlSecondsAfterFinished"] for each in jobs(first))


def _secret(name: str, value: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": value}}


def test_an_upgrade_after_a_change_of_a_secret_replaces_the_pods_that_have_it(prepared: Server, chart: Helm) -> None:
    values = yaml.safe_load(Path(EXTERNAL).read_text())
    names = {key: found["existingSecret"] for key, found in values.items()}
    prepared.apply([_secret(name, "one") for name in names.values()])

    def templates() -> dict[str, Object]:
        objects = chart.rendered("--values", EXTERNAL)
        workloads = ("operator", "api", "provisioner")
        return {each: one(objects, "Deployment", f"{RELEASE}-{each}")["spec"]["template"] for each in workloads}

    before = templates()

    def changed() -> set[str]:
        nonlocal before
        former, before = before, templates()
        return {name for name, template in before.items() if template != former[name]}

    assert changed() == set()
    for name, having in (
        ("externalDatabase", {"operator", "api"}),
        ("externalRedis", {"operator", "api", "provisioner"}),
        ("externalS3", {"api", "provisioner"}),
        ("provisioner", {"provisioner"}),
    ):
        prepared.apply([_secret(names[name], "two")])
        assert changed() == having, name


def _claims(objects: list[Object]) -> set[bool]:
    return {"volumeClaimTemplates" in each["spec"] for each in objects if each["kind"] == "StatefulSet"}


def test_development_services_have_volumes_where_there_is_a_default_storage_class(
    prepared: Server, chart: Helm
) -> None:
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
    }
    lacking = "They have no volume, because the cluster has no default StorageClass"
    assert _claims(rendered()) == {True}, "without access to the cluster"
    without = chart.rendered(*DEV)
    assert _claims(without) == {False}
    assert lacking in chart.notes(*DEV)
    prepared.apply([storage])
    try:
        assert _claims(chart.rendered(*DEV)) == {True}
        assert lacking not in chart.notes(*DEV)
        # What a StatefulSet claims cannot be changed, so an upgrade leaves it.
        prepared.apply([each for each in without if each["kind"] == "StatefulSet"])
        assert _claims(chart.rendered(*DEV)) == {False}
    finally:
        prepared.kubectl("delete", "storageclass", "standard")
    for value, claims in (("true", True), ("false", False)):
        assert _claims(chart.rendered(*DEV, "--set", f"devServices.persistence.enabled={value}")) == {claims}
