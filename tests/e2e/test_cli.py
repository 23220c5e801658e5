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
ELSEWHERE = ("dev",)
"""Commands with a stack of their own: test_cli_dev.py."""
ON_AN_OPEN_TASK = ("cancel", "suspend", "resume", "delete")
POOL = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "main"},
    "spec": {
        "queues": ["default"],
        "concurrency": 2,
        "replicas": 1,
        "template": {
            "spec": {
                "containers": [
                    {"name": "worker", "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_handlers"}]}
                ]
            }
        },
    },
}
RIGHTS = "create get list watch patch delete"
SERVER = "https://taskflow.example.com"
AT_A_TERMINAL = f"login --server {SERVER}"
"""Asks for a token: tests/unit/taskflow_cli/test_rest.py."""
HELLO = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": "hello"},
    "spec": {"handler": "e2e.table", "outputs": [{"name": "table.csv"}]},
}
TASK = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"generateName": "report-"},
    "spec": {"handler": "taskflow.echo", "kwargs": {"value": 1}},
}
SCHEDULE = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "TaskSchedule",
    "metadata": {"name": "nightly"},
    "spec": {
        "schedules": ["30 2 * * *"],
        "timeZone": "Europe/Berlin",
        "concurrencyPolicy": "Forbid",
        "taskTemplate": {"spec": {"handler": "taskflow.echo", "kwargs": {"value": "good night"}}},
    },
}
CRONJOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "nightly"},
    "spec": {"schedule": "30 2 * * *", "timeZone": "Europe/Berlin", "jobTemplate": {"spec": {}}},
}


def night(handler: str, **kwargs: float | None) -> str:
    """Argument of a patch that changes what the schedule runs."""
    return f"'{json.dumps({'spec': {'taskTemplate': {'spec': {'handler': handler, 'kwargs': kwargs}}}})}'"


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
    client = product.stack.env()
    (folder / "key.txt").write_text(client["TASKFLOW_API_TOKEN"])
    environ = {"HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig"), "PATH": path}
    user = Shell(folder, {"API": client["TASKFLOW_API_URL"], **os.environ, **environ})
    verbs = " ".join(f"--verb={verb}" for verb in RIGHTS.split())
    user.out(f"kubectl create role user {verbs} --resource=tasks.taskflow.dev,taskschedules.taskflow.dev")
    user.out("kubectl create rolebinding user --role=user --serviceaccount=default:taskflow-client")
    said = user("taskflow login --server $API --token-file - < key.txt")
    assert (said.returncode, said.stderr) == (0, f"logged in to {client['TASKFLOW_API_URL']} for context taskflow\n")
    product.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(POOL))
    product.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(SCHEDULE))
    eventually(lambda: json.loads(user.out("taskflow pool list -o json"))["items"], _has_slots, 60)
    yield user
    user.out("taskflow pool resume main; for kind in tfs tft tfp; do kubectl delete $kind --all; done")
    shutil.rmtree(folder)


def _has_slots(pools: list[dict[str, dict[str, int]]]) -> bool:
    return [pool.get("status", {}).get("slots") for pool in pools] == [2]


def examples() -> list[tuple[str, str]]:
    """Each command's name and one of its examples, in the order of the help."""
    found = []
    for name in [each for each in NAMES if each not in ELSEWHERE]:
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


def test_a_log_is_followed_over_a_restart_of_the_api(shell: Shell, product: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    shell.out(f"taskflow submit e2e.talk_until -p path={gate} --name talks")
    shell.out("until taskflow logs talks > /dev/null 2>&1; do sleep 0.2; done")
    command = ["bash", "-c", "exec taskflow logs talks -f"]
    with subprocess.Popen(
        command, env=shell.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert follower.stdout.readline().endswith(" line 0\n")
        product.stack.stop("api")
        assert follower.stderr.readline().endswith("; waiting for it\n")
        product.stack.up(log=lambda _: None)
        gate.touch()
        rest = follower.stdout.read()
    assert follower.returncode == 0
    texts = [line.split(" ", 2)[2] for line in rest.splitlines()]
    assert texts == [*(f"line {number}" for number in range(1, len(texts))), "the end"]


def test_a_retry_goes_on_in_the_log_and_files_and_items_come_by_rest(shell: Shell) -> None:
    shell.out("taskflow submit taskflow.fail -p until_attempt=2 --name fails-once")
    done = shell("until taskflow logs fails-once > /dev/null 2>&1; do sleep 0.2; done; taskflow logs fails-once -f")
    assert done.returncode == 0
    assert "RuntimeError: asked to fail" in done.stdout
    assert done.stderr in {"attempt 2\n", ""}
    (shell.folder / "named.yaml").write_text(json.dumps({**HELLO, "metadata": {"name": "named"}}))
    shell.out("taskflow submit -f named.yaml --wait")
    done = shell("taskflow cp named:table.csv mine.csv")
    assert (done.returncode, done.stderr) == (0, "mine.csv: 8 bytes\n")
    assert (shell.folder / "mine.csv").read_text() == "a,b\n1,2\n"
    shell.out("taskflow delete named")
    listed = eventually(lambda: shell.out("taskflow list --history --phase Succeeded -o name"), lambda t: "/named" in t)
    assert "task.taskflow.dev/named\n" in listed
    assert "named" not in shell.out("taskflow list -o name")


def test_a_schedule_is_run_now_and_its_past_is_shown(shell: Shell) -> None:
    done = shell("taskflow schedule run nightly --wait -o jsonpath='{.status.result}'")
    assert (done.returncode, done.stdout) == (0, "good night\n")
    name = done.stderr.split()[0].removeprefix("task/")
    runs = eventually(lambda: shell.out("taskflow schedule runs nightly -o jsonl"), lambda text: name in text)
    assert json.loads(runs.splitlines()[0])["manual"] is True
    ticks = json.loads(shell.out("taskflow schedule next nightly --count 2 -o json"))["items"]
    assert [tick["localTime"][10:19] for tick in ticks] == ["T02:30:00"] * 2
    shell.out("kubectl patch tfs nightly --type=merge -p " + night("taskflow.sleep", seconds=600, value=None))
    first = shell.out("taskflow schedule run nightly -o name").strip()
    shell.out(f"until kubectl get {first} > /dev/null 2>&1; do sleep 0.2; done")
    done = shell("taskflow schedule run nightly --wait --timeout 60s")
    assert done.returncode == 5
    assert "concurrencyPolicy is Forbid" in done.stderr
    shell.out(f"taskflow cancel {first} && taskflow wait {first} --timeout 60s; test $? = 11")
    shell.out("kubectl patch tfs nightly --type=merge -p " + night("taskflow.echo", seconds=None))


def test_why_says_what_the_operator_found(shell: Shell) -> None:
    shell.out("taskflow submit taskflow.echo -p value=1 -q nobody --name unserved")
    said = eventually(lambda: shell.out("taskflow why unserved"), lambda text: "NoWorkerPool" in text)
    assert said.splitlines()[1:] == ["no WorkerPool serves queue 'nobody'; served queues: default"]
    shell.out("taskflow delete unserved")


@pytest.mark.timeout(600)
def test_every_example_of_the_help_works(shell: Shell) -> None:
    (shell.folder / "table.yaml").write_text(json.dumps(HELLO))
    shell.out("taskflow submit -f table.yaml --label team=billing --wait")
    array = {**TASK, "metadata": {"name": "big-array"}, "spec": {"handler": "taskflow.fail", "array": {"count": 2}}}
    array["spec"] |= {"retryPolicy": {"maxAttempts": 1}}  # type: ignore[operator]
    (shell.folder / "array.yaml").write_text(json.dumps(array))
    assert shell("taskflow submit -f array.yaml --wait --timeout 2m").returncode == 10
    ran = []
    for name, arguments in examples():
        if arguments == AT_A_TERMINAL:
            continue
        if name in ON_AN_OPEN_TASK:
            shell("taskflow delete hello")
            suspended = {**TASK, "metadata": {"name": "hello"}, "spec": {"handler": "taskflow.echo", "suspend": True}}
            (shell.folder / "hello.yaml").write_text(json.dumps(suspended))
            shell.out("taskflow submit -f hello.yaml --label team=billing")
        done = shell(f"taskflow {arguments.replace(SERVER, '$API')}")
        ran.append((arguments, done.returncode, done.stderr if done.returncode else ""))
    assert [each for each in ran if each[1]] == []
    assert len(ran) > 30
