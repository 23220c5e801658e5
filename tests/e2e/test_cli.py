"""The command line against the whole product: every example of its help, and outcomes of real Tasks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from taskflow_cli.options import Command
from taskflow_cli.program import NAMES, program
from tests.e2e.product import Product, eventually

pytestmark = pytest.mark.e2e
NAMESPACE = "cli"
ON_AN_OPEN_TASK = ("cancel", "suspend", "resume", "delete")
POOL = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "main"},
    "spec": {"queues": ["default"], "concurrency": 2, "replicas": 1},
}
TASK = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"generateName": "report-"},
    "spec": {"handler": "taskflow.echo", "kwargs": {"value": 1}},
}
CRONJOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "nightly"},
    "spec": {"schedule": "30 2 * * *", "timeZone": "Europe/Berlin", "jobTemplate": {"spec": {}}},
}


@dataclass(frozen=True)
class Shell:
    """A user's shell in a namespace with one warm worker."""

    folder: Path
    environ: dict[str, str]

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )

    def out(self, command: str) -> str:
        done = self(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shell(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("user")
    product.stack.add_namespace(NAMESPACE)
    config = yaml.safe_load(product.stack.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = NAMESPACE
    (folder / "kubeconfig").write_text(json.dumps(config))
    (folder / "task.yaml").write_text(json.dumps(TASK))
    (folder / "cronjob.yaml").write_text(json.dumps(CRONJOB))
    (folder / "celery_app.py").write_text("beat_schedule = {'a': {'task': 'shop.tick', 'schedule': 60}}\n")
    path = f"{Path(sys.executable).parent}:{product.stack.env()['PATH']}"
    user = Shell(folder, {**os.environ, "KUBECONFIG": str(folder / "kubeconfig"), "PATH": path})
    product.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(POOL))
    eventually(lambda: json.loads(user.out("taskflow pool list -o json"))["items"], _has_slots, 60)
    yield user
    user.out("taskflow pool resume main && kubectl delete tft --all && kubectl delete tfp --all")
    shutil.rmtree(folder)


def _has_slots(pools: list[dict[str, dict[str, int]]]) -> bool:
    return [pool.get("status", {}).get("slots") for pool in pools] == [2]


def examples() -> list[tuple[str, str]]:
    """Each command's name and one of its examples, in the order of the help."""
    found = []
    for name in NAMES:
        command = program.get_command(click.Context(program), name)
        assert command is not None
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert isinstance(leaf, Command)
            found += [(name, arguments) for arguments, _ in leaf.examples]
    return found


def test_a_result_an_error_and_a_cancellation_are_exit_codes(shell: Shell) -> None:
    done = shell("taskflow submit taskflow.echo -p 'value={\"a\": [1]}' --name first --wait")
    assert (done.returncode, done.stderr) == (0, "task/first created\n")
    assert done.stdout.startswith("task/first succeeded in ")
    assert done.stdout.endswith(': {"a": [1]}\n')
    done = shell("taskflow submit taskflow.fail --name second --max-attempts 1 --watch -o jsonpath='{.status.phase}'")
    assert (done.returncode, done.stdout) == (10, "Failed\n")
    assert "error: Task 'second' failed: HandlerError: " in done.stderr
    assert "Last error: attempt 1, HandlerError" in shell.out("taskflow describe second")
    assert "attempt 1 ended with HandlerError" in shell.out("taskflow why second")
    shell.out("taskflow submit taskflow.sleep -p seconds=600 --name third")
    shell.out("taskflow cancel third")
    assert shell("taskflow wait third --timeout 60s").returncode == 11


def test_why_says_what_the_operator_found(shell: Shell) -> None:
    shell.out("taskflow submit taskflow.echo -p value=1 -q nobody --name unserved")
    said = eventually(lambda: shell.out("taskflow why unserved"), lambda text: "NoWorkerPool" in text)
    assert said.splitlines()[1:] == ["no WorkerPool serves queue 'nobody'; served queues: default"]
    shell.out("taskflow delete unserved")


@pytest.mark.timeout(600)
def test_every_example_of_the_help_works(shell: Shell) -> None:
    shell.out("taskflow submit taskflow.echo -p value=hello --name hello --label team=billing --wait")
    array = {**TASK, "metadata": {"name": "big-array"}, "spec": {"handler": "taskflow.fail", "array": {"count": 2}}}
    array["spec"] |= {"retryPolicy": {"maxAttempts": 1}}  # type: ignore[operator]
    (shell.folder / "array.yaml").write_text(json.dumps(array))
    assert shell("taskflow submit -f array.yaml --wait --timeout 2m").returncode == 10
    ran = []
    for name, arguments in examples():
        if name in ON_AN_OPEN_TASK:
            shell("taskflow delete hello")
            suspended = {**TASK, "metadata": {"name": "hello"}, "spec": {"handler": "taskflow.echo", "suspend": True}}
            (shell.folder / "hello.yaml").write_text(json.dumps(suspended))
            shell.out("taskflow submit -f hello.yaml --label team=billing")
        done = shell(f"taskflow {arguments}")
        ran.append((arguments, done.returncode, done.stderr if done.returncode else ""))
    assert [each for each in ran if each[1]] == []
    assert len(ran) > 30
