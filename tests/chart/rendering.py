"""The chart as Helm renders it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from taskflow_local.programs import Resolver

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "taskflow"
SHAPES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
DEV = ("--set", "devServices.enabled=true")
Object = dict[str, Any]


@functools.cache
def program(name: str) -> Path:
    return Resolver(log=lambda _: None).resolve(name)


def helm(*arguments: str, kubeconfig: str = "", which: str = "helm") -> subprocess.CompletedProcess[str]:
    """Without a kubeconfig it cannot speak to a cluster, least of all to that of whoever runs the tests."""
    environment = os.environ | {"KUBECONFIG": kubeconfig or os.devnull}
    return subprocess.run([program(which), *arguments], capture_output=True, text=True, check=False, env=environment)


def template(*arguments: str, release: str = "taskflow") -> subprocess.CompletedProcess[str]:
    return helm("template", release, str(CHART), "--namespace", "taskflow-system", *arguments)


def render(*arguments: str, release: str = "taskflow") -> list[Object]:
    """The objects, or an AssertionError with what Helm said."""
    done = template(*arguments, release=release)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@functools.cache
def shape(name: str) -> tuple[Object, ...]:
    """What one file of `ci/` renders to; not to be changed."""
    return tuple(render("--values", str(CHART / "ci" / f"{name}-values.yaml")))


def one(objects: list[Object] | tuple[Object, ...], kind: str, name: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].startswith(name)]
    return found


def pods(objects: tuple[Object, ...] | list[Object]) -> Iterator[tuple[str, Object]]:
    """The specification of every pod, with the name of its object."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]["spec"]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]
