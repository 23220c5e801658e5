"""In which order the CRD and its policies come and go: they never block Tasks."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_core import resources
from taskflow_local.stack import Stack
from tests.integration.crds.conftest import Cluster
from tests.integration.templates.conftest import apply, eventually_refused, refusal, task, template

pytestmark = pytest.mark.integration
CLOSED = {"name": "closed", "kwargs": {"type": "object", "additionalProperties": False}}
WRONG, RIGHT = task("closed", kwargs={"a": 1}), task("closed")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server without CRDs."""
    stack = Stack(Path(tmp_path_factory.mktemp("order")) / "state", components=("etcd", "kube-apiserver"))
    try:
        stack.up(log=lambda _: None)
        yield Cluster(stack)
    finally:
        stack.down(log=lambda _: None)


def _crd(cluster: Cluster, plural: str) -> None:
    cluster.kubectl("apply", "-f", str(resources.path("crds") / f"{plural}.taskflow.dev.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{plural}.taskflow.dev", "--timeout=30s")


def _never_blocks(cluster: Cluster, seconds: float) -> None:
    """The API server notices a change of CRDs and policies within a few seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert refusal(cluster, RIGHT) == ""
        time.sleep(0.2)


def test_policies_without_the_crd_block_no_task_and_work_once_it_is_there(own: Cluster) -> None:
    _crd(own, "tasks")
    for path in sorted(resources.path("policies").glob("*.yaml")):
        own.kubectl("apply", "--server-side", "-f", str(path))
    _never_blocks(own, seconds=5)
    # Also right after a start, when nothing is looked up yet.
    own.stack.stop("kube-apiserver", signal.SIGKILL)
    own.stack.start("kube-apiserver")
    _never_blocks(own, seconds=5)
    _crd(own, "tasktemplates")
    own.kubectl("apply", "-f", "-", manifest=template("closed", CLOSED))
    eventually_refused(own, WRONG)
    assert refusal(own, RIGHT) == ""


def test_after_a_start_right_tasks_pass_at_once_and_wrong_ones_are_refused_soon(own: Cluster) -> None:
    own.stack.stop("kube-apiserver", signal.SIGKILL)
    own.stack.start("kube-apiserver")
    assert refusal(own, RIGHT) == ""
    eventually_refused(own, WRONG)


def test_removal_of_the_crd_blocks_no_task(own: Cluster) -> None:
    own.kubectl("delete", "crd", "tasktemplates.taskflow.dev")
    _never_blocks(own, seconds=10)
    assert refusal(own, WRONG) == ""
    # And it may come back.
    _crd(own, "tasktemplates")
    apply(own, template("closed", CLOSED))


def test_removal_of_the_policies_ends_the_checks(own: Cluster) -> None:
    for path in sorted(resources.path("policies").glob("*.yaml")):
        own.kubectl("delete", "-f", str(path))
    deadline = time.monotonic() + 30
    while refusal(own, WRONG):
        assert time.monotonic() < deadline
        time.sleep(0.1)
