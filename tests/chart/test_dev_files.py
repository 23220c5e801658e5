"""compose.yaml and skaffold.yaml, as far as they can be checked without Docker: by their schemas, and against what they
name.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, ROOT, Object, one, program, render

SKAFFOLD_SCHEMA = str(Path(__file__).parent / "schemas" / "skaffold-v4beta14.json")


def _check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("skaffold.yaml", ("--schemafile", SKAFFOLD_SCHEMA)),
        ("compose.yaml", ("--builtin-schema", "vendor.compose-spec")),
        ("charts/taskflow/values.yaml", ("--schemafile", str(CHART / "values.schema.json"))),
        *(
            (f"charts/taskflow/ci/{path.name}", ("--schemafile", str(CHART / "values.schema.json")))
            for path in (CHART / "ci").iterdir()
        ),
    ],
)
def test_a_file_keeps_to_its_schema(file: str, schema: tuple[str, ...]) -> None:
    done = _check(*schema, file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_are_sound_and_grant_no_more_than_they_need() -> None:
    files = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yaml")))
    assert len(files) > 1
    # Without shellcheck, of which not every machine has the same version.
    lint = [str(program("actionlint")), "-shellcheck=", *files]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    audit = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--no-progress", *files]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_schema_of_skaffold_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "skaffold.yaml"
    file.write_text((ROOT / "skaffold.yaml").read_text().replace("chartPath:", "chart:"))
    assert _check("--schemafile", SKAFFOLD_SCHEMA, str(file)).returncode == 1


def _targets() -> set[str]:
    return set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))


def test_every_image_that_is_built_is_a_target_of_the_dockerfile() -> None:
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    named = {artifact["docker"]["target"] for artifact in skaffold["build"]["artifacts"]}
    named |= {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert named == {"operator", "api", "worker", "minio", "migrate"}
    assert named <= _targets()


def test_skaffold_sets_each_image_that_it_builds_and_no_value_the_chart_does_not_know() -> None:
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    (release,) = skaffold["deploy"]["helm"]["releases"]
    images = {artifact["image"] for artifact in skaffold["build"]["artifacts"]}
    used = set(re.findall(r"\.IMAGE_REPO_(\w+)", str(release["setValueTemplates"])))
    assert used == {image.replace("-", "_") for image in images}
    settings = [f"{key}=x" for key in release["setValueTemplates"]]
    objects = render("--set", ",".join(["devServices.enabled=true", *settings]))
    service = skaffold["portForward"][0]["resourceName"]
    assert service in [each["metadata"]["name"] for each in objects if each["kind"] == "Service"]


def _patched(profiles: tuple[str, ...]) -> dict[str, Any]:
    """skaffold.yaml with the JSON patches of these profiles; KeyError or IndexError where a path leads nowhere."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    named = {profile["name"]: profile for profile in found.pop("profiles")}
    for patch in (patch for name in profiles for patch in named[name].get("patches", [])):
        *parents, last = patch["path"].lstrip("/").split("/")
        where: Any = found
        for key in parents:
            where = where[int(key)] if isinstance(where, list) else where[key]
        if isinstance(where, list):
            where.append(patch["value"])
        else:
            assert (last in where) == (patch["op"] == "replace"), patch["path"]
            where[last] = patch["value"]
    return found


def _deployed(skaffold: dict[str, Any]) -> list[Object]:
    """The chart by the values that skaffold gives it, images apart."""
    (release,) = skaffold["deploy"]["helm"]["releases"]
    return render("--set", ",".join(f"{key}={json.dumps(value)}" for key, value in release["setValues"].items()))


@pytest.mark.parametrize("profiles", [("dev",), ("dev", "debug"), ("ci",)])
def test_a_profile_of_skaffold_names_what_there_is(profiles: tuple[str, ...], tmp_path: Path) -> None:
    found = _patched(profiles)
    file = tmp_path / "skaffold.yaml"
    file.write_text(yaml.safe_dump(found))
    done = _check("--schemafile", SKAFFOLD_SCHEMA, str(file))
    assert done.returncode == 0, done.stdout
    assert {artifact["docker"]["target"] for artifact in found["build"]["artifacts"]} <= _targets()
    for rule in (
        rule for artifact in found["build"]["artifacts"] for rule in artifact.get("sync", {}).get("manual", [])
    ):
        assert list(ROOT.glob(rule["src"]))
    objects = _deployed(found)
    for forward in found["portForward"]:
        kind = {"service": "Service", "deployment": "Deployment"}[forward["resourceType"]]
        assert one(objects, kind, forward["resourceName"])


def test_skaffold_verify_runs_what_helm_test_runs_as_whom_it_runs_it() -> None:
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    (case,) = skaffold["verify"]
    objects = _deployed(skaffold)
    pod = one(objects, "Pod", "taskflow-smoke")["spec"]
    (container,) = pod["containers"]
    assert case["container"]["command"] == container["command"]
    values = {each["name"]: each["value"].removesuffix(":80") for each in container["env"]}
    assert {each["name"]: each["value"] for each in case["container"]["env"]} == values
    job = yaml.safe_load((ROOT / case["executionMode"]["kubernetesCluster"]["jobManifestPath"]).read_text())
    account = one(objects, "ServiceAccount", "taskflow-smoke")["metadata"]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == account["name"] == pod["serviceAccountName"]
    assert job["metadata"]["namespace"] == account["namespace"]
    assert "annotations" not in account


def test_compose_has_no_default_password_and_none_in_an_argument() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        assert f"${{TASKFLOW_{name}:?" in text
        assert f"${{TASKFLOW_{name}:-" not in text
    for service in yaml.safe_load(text)["services"].values():
        assert "${TASKFLOW" not in str(service.get("command", ""))


def test_the_kind_cluster_is_of_the_version_that_its_tool_reads() -> None:
    cluster = yaml.safe_load((ROOT / "kind" / "cluster.yaml").read_text())
    assert (cluster["kind"], cluster["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")


def _base_images(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "base_images.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the pinning of base images reads, to be changed."""
    (tmp_path / "tools").mkdir()
    for name in ("Dockerfile", "tools/base_images.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_every_image_starts_from_a_base_that_can_be_pinned() -> None:
    text = (ROOT / "Dockerfile").read_text()
    sources = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    assert sources - _targets() == {"${BASE}", "${GO_BASE}", "scratch"}
    # Nor is the reader of the Dockerfile itself an image that is fetched by its tag.
    assert "# syntax=" not in text
    assert "pip install" in text
    assert all("--require-hashes" in line for line in text.splitlines() if "pip install" in line)


@pytest.mark.parametrize(
    "lock",
    [
        None,
        "BASE={base}\nGO_BASE={go}\n",
        "BASE={base}@sha256:{digest}\n",
        "BASE=python:3.12@sha256:{digest}\nGO_BASE={go}@sha256:{digest}\n",
        "BASE={base}@sha256:abc\nGO_BASE={go}@sha256:{digest}\n",
    ],
)
def test_a_release_is_refused_unless_each_base_image_has_a_digest(lock: str | None, tree: Path) -> None:
    base, go = re.findall(r"^ARG \w*BASE=(\S+)$", (tree / "Dockerfile").read_text(), re.MULTILINE)
    if lock is not None:
        (tree / "base-images.lock").write_text(lock.format(base=base, go=go, digest="a" * 64))
    done = _base_images("arguments", root=tree)
    assert (done.returncode, done.stdout) == (1, "")
    assert "run `make pin-images`" in done.stderr


def test_pinned_base_images_are_the_arguments_of_a_release(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In place of Docker, which not every machine has: it answers with a digest of what it is asked for.
    docker = tree / "docker"
    docker.write_text("#!/bin/sh\nprintf 'sha256:'; printf '%s' \"$4\" | sha256sum | cut -d' ' -f1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tree}:/usr/bin:/bin")
    assert _base_images("pin", root=tree).returncode == 0
    done = _base_images("arguments", root=tree)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [re.sub(r"[0-9a-f]{64}$", "...", line) for line in lines] == [
        "--build-arg=BASE=python:3.13-slim-trixie@sha256:...",
        "--build-arg=GO_BASE=golang:1.26-trixie@sha256:...",
    ]
    assert len(set(lines)) == 2


def test_the_builder_of_images_gets_all_that_the_wheel_is_made_of() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {Path(name).parts[0] for name in (*wheel["packages"], *wheel["force-include"])}
    given = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert needed <= given


def test_the_release_builds_with_those_arguments_only() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["publish"]["steps"]]
    check = next(n for n, run in enumerate(steps) if "base_images.py arguments > base-arguments" in run)
    build = next(n for n, run in enumerate(steps) if "docker buildx build" in run)
    assert check < build
    assert "mapfile -t base < base-arguments" in steps[build]
    assert '"${base[@]}"' in steps[build]
