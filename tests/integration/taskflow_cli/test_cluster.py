"""The command line as an installed program, against a real API server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_cli.tasks.columns import PHASES
from tests.chart.rendering import DEV, render
from tests.integration.taskflow_cli.conftest import Site

pytestmark = pytest.mark.integration
PERSONAS = ("taskflow-view", "taskflow-edit", "taskflow-admin")
SHELLS = [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)]


def started(site: Site, command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=site.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ignored, if these tests run in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def line(process: subprocess.Popen[str]) -> str:
    """The next line on stderr, which says how far it is."""
    assert process.stderr is not None
    return process.stderr.readline()


def test_a_task_from_a_handler_to_its_result(site: Site) -> None:
    name = site.out("taskflow submit reports.summarise -p year=2026 -p who=me -o name").strip()
    found = json.loads(site.out(f"taskflow get {name} -o json"))
    assert found["spec"]["kwargs"] == {"year": 2026, "who": "me"}
    assert found == json.loads(site.out(f"kubectl get {name} -o json"))
    short = found["metadata"]["name"]
    waiting = started(site, f"taskflow wait {name} --watch -o jsonpath='{{.status.result}}'")
    assert line(waiting) == f"{short}: Pending\n"
    site.ended(short, "Running", progress={"done": 1, "total": 2})
    assert line(waiting) == f"{short}: Running, attempt 1, 1/2 (50%)\n"
    site.ended(short, "Succeeded", result={"rows": 7})
    assert waiting.communicate()[0] == '{"rows":7}\n'
    assert waiting.returncode == 0
    assert site.out(f"taskflow delete {name}") == f"task/{short} deleted\n"


@pytest.mark.parametrize(("phase", "code"), [("Failed", 10), ("Cancelled", 11)])
def test_a_wait_for_an_end_that_is_no_success(site: Site, phase: str, code: int) -> None:
    name = f"ends-{phase.lower()}"
    waiting = started(site, f"taskflow submit reports.summarise --name {name} --watch")
    assert line(waiting) == f"task/{name} created\n"
    assert line(waiting) == f"{name}: Pending\n"
    site.ended(name, phase, message="so it is")
    out, err = waiting.communicate()
    assert (waiting.returncode, out) == (code, f"task/{name} {phase.lower()}\n")
    assert err.startswith(f"error: Task '{name}' {phase.lower()}: {phase}: so it is\n")
    again = site.out(f"taskflow retry {name} -o json")
    assert json.loads(again)["metadata"]["annotations"]["taskflow.dev/retried-from"]


def test_ctrl_c_leaves_the_task(site: Site) -> None:
    waiting = started(site, "taskflow submit reports.summarise --name left --watch")
    assert [line(waiting), line(waiting)] == ["task/left created\n", "left: Pending\n"]
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate()
    assert waiting.returncode == 130
    assert err == "error: interrupted: left goes on\nhint: stop with: taskflow cancel left -n default\n"
    assert site.out("taskflow get left -o jsonpath='{.spec.cancel}'") == "false\n"
    assert site.out("taskflow cancel left") == "task/left is being cancelled\n"
    assert site.out("taskflow get left -o jsonpath='{.spec.cancel}'") == "true\n"


def test_a_wait_outlives_the_api_server(site: Site) -> None:
    waiting = started(site, "taskflow submit reports.summarise --name survivor --watch")
    assert [line(waiting), line(waiting)] == ["task/survivor created\n", "survivor: Pending\n"]
    site.stack.stop("kube-apiserver", signal.SIGKILL)
    assert line(waiting).endswith("; waiting for it\n")
    site.stack.up(log=lambda _: None)
    site.ended("survivor", "Succeeded", result=1)
    out, err = waiting.communicate()
    assert (waiting.returncode, out, err) == (0, "task/survivor succeeded: 1\n", "")


def test_the_api_server_filters_by_the_fields_that_the_options_name(site: Site) -> None:
    for phase in PHASES:
        site.out(f"taskflow submit filter.me --name filter-{phase.lower()} -q night --label kind=filter")
        if phase != "Pending":
            site.ended(f"filter-{phase.lower()}", phase)
    for phase in PHASES:
        found = site.out(f"taskflow list --handler filter.me -q night -l kind=filter --phase {phase} -o name")
        assert found == f"task.taskflow.dev/filter-{phase.lower()}\n"
    assert len(site.out("taskflow list -l kind=filter --no-headers -A").splitlines()) == len(PHASES)
    assert site.out("taskflow suspend -l kind=filter --yes").count("suspended\n") == 4
    assert site.out("taskflow delete -l kind=filter --yes").count("deleted\n") == len(PHASES)


def test_what_the_api_server_refuses(site: Site) -> None:
    site.out("taskflow submit a.b --name twice")
    expected = {
        "taskflow submit a.b --name twice": (5, "error: cannot create Task 'twice': "),
        "taskflow submit a.b -q Not_a_queue --name q": (6, "error: cannot create Task 'q': spec.queue: "),
        "taskflow submit a.b --name Big": (6, "error: cannot create Task 'Big': metadata.name: "),
        "taskflow get twise": (3, "error: Task 'twise' was not found in namespace default\nhint: did you mean twice?"),
        "taskflow list -l '???'": (6, "error: cannot list tasks: "),
        "taskflow submit a.b -n nowhere": (3, "error: cannot create Task 'b-...': namespaces \"nowhere\" not found"),
        "KUBECONFIG=/nowhere taskflow list": (1, "error: no cluster is chosen"),
    }  # fmt: skip
    for command, (code, error) in expected.items():
        done = site.shell(command)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(error)
    unknown = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "Task", "metadata": {"name": "u"}}
    done = site.shell("taskflow submit -f -", json.dumps(unknown | {"spec": {"handler": "a", "retries": 3}}))
    assert (done.returncode, done.stdout) == (6, "")
    assert 'unknown field "spec.retries"' in done.stderr


def test_a_dry_run_by_the_server_fills_in_defaults_and_keeps_nothing(site: Site) -> None:
    found = yaml.safe_load(site.out("taskflow submit a.b --name dry --dry-run server -o yaml"))
    assert found["spec"]["retryPolicy"]["maxAttempts"] == 3
    assert site.shell("taskflow get dry").returncode == 3


def test_pools_of_a_real_api_server(site: Site) -> None:
    pool = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "cli"}}
    site.out("kubectl apply -f -", json.dumps(pool | {"spec": {"queues": ["default"]}}))
    for verb, paused, drain in (("pause", True, False), ("drain", True, True), ("resume", False, False)):
        site.out(f"taskflow pool {verb} cli")
        spec = json.loads(site.out("taskflow pool list -o json"))["items"][0]["spec"]
        assert (spec.get("paused", False), spec.get("drain", False)) == (paused, drain)


def test_schedules_on_a_real_api_server(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text(
        "from celery.schedules import crontab\n"
        "beat_schedule = {\n"
        "  'often': {'task': 'shop.tick', 'schedule': 30.0, 'args': (1,), 'options': {'expires': 9}},\n"
        "  'days': {'task': 'shop.day', 'schedule': crontab(hour='22-2', minute='*/5', day_of_week='fri-mon')},\n"
        "}\n"
    )
    cronjob = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {
            "schedule": "CRON_TZ=Europe/Berlin 30 2 ? * MON-FRI",
            "startingDeadlineSeconds": 0,
            "jobTemplate": {"spec": {"backoffLimit": 0, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5}},
        },
    }
    (tmp_path / "cronjob.json").write_text(json.dumps(cronjob))
    site.out(f"taskflow schedule convert {source} | kubectl apply --validate=strict -f -")
    site.out(f"taskflow schedule convert {tmp_path}/cronjob.json --handler a.b | kubectl apply --validate=strict -f -")
    listed = json.loads(site.out("taskflow schedule list -o json"))["items"]
    assert {each["metadata"]["name"]: each["spec"].get("schedules") for each in listed} == {
        "often": None,
        "days": ["*/5 22-23,0-2 * * 5-6,0-1"],
        "nightly": ["30 2 * * MON-FRI"],
    }
    site.out("taskflow schedule suspend nightly")
    assert "Suspended" in site.out("taskflow schedule list")
    site.out("taskflow schedule resume nightly")
    name = site.out("taskflow schedule run nightly -o name")
    assert name.startswith("task.taskflow.dev/nightly.run-")
    done = site.shell("taskflow schedule run nightly")
    assert (done.returncode, done.stdout) == (5, "")
    assert "was asked for, and the operator has not created it yet" in done.stderr
    assert "nightly\n" in site.out("kubectl __complete taskflow schedule suspend ni")


def test_roles_may_what_they_are_for(site: Site) -> None:
    roles = [each for each in render(*DEV) if each["kind"] == "ClusterRole" and each["metadata"]["name"] in PERSONAS]
    assert len(roles) == len(PERSONAS)
    for role in roles:
        site.out("kubectl apply -f -", json.dumps(role))
        short = role["metadata"]["name"].rpartition("-")[2]
        site.out(f"kubectl create rolebinding cli-{short} --clusterrole={role['metadata']['name']} --user={short}")
    site.out("kubectl create rolebinding cli-edit-views --clusterrole=taskflow-view --user=edit")
    site.out("taskflow submit a.b --name roles")
    may = {
        "taskflow list --as view": 0,
        "taskflow describe roles --as view": 0,
        "taskflow why roles --as view": 0,
        "taskflow pool list --as view": 0,
        "taskflow schedule list --as view": 0,
        "taskflow schedule run often --as view": 4,
        "taskflow schedule suspend nightly --as edit": 0,
        "taskflow submit a.b --as view": 4,
        "taskflow cancel roles --as view": 4,
        "taskflow list -A --as view": 4,
        "taskflow submit a.b --as edit": 0,
        "taskflow suspend roles --as edit": 0,
        "taskflow delete roles --as edit": 0,
        "taskflow pool pause cli --as edit": 4,
        "taskflow list --as nobody": 4,
    }
    assert {command: site.shell(command).returncode for command in may} == may
    done = site.shell("taskflow pool pause cli --as edit")
    assert 'User "edit" cannot patch resource "workerpools"' in done.stderr
    assert "hint: ask an administrator for the role" in done.stderr


def test_a_certificate_that_is_not_trusted(site: Site, tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(site.stack.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    path = tmp_path / "config"
    cluster.pop("certificate-authority-data")
    path.write_text(json.dumps(config))
    done = site.shell(f"taskflow list --kubeconfig {path}")
    assert (done.returncode, done.stdout) == (7, "")
    assert "its certificate is not trusted" in done.stderr
    cluster["insecure-skip-tls-verify"] = True
    path.write_text(json.dumps(config))
    assert site.shell(f"taskflow list --kubeconfig {path}").returncode == 0
    config["users"][0]["user"]["token"] = "wrong"
    path.write_text(json.dumps(config))
    done = site.shell(f"taskflow list --kubeconfig {path}")
    assert done.returncode == 4
    assert "hint: the credentials of the kubeconfig are wrong or have expired" in done.stderr


def test_versions(site: Site) -> None:
    found = json.loads(site.out("taskflow version -o json"))
    assert found["kubernetes"].startswith("v1.")
    assert found["taskflow.dev"] == "v1alpha1"


def test_kubectl_runs_it_as_a_plugin_and_completes_it(site: Site) -> None:
    site.out("taskflow submit a.b --name plugin-task")
    assert "plugin-task" in site.out("kubectl taskflow list")
    assert "Usage: kubectl taskflow" in site.out("kubectl taskflow --help")
    assert "plugin-task\n" in site.out("kubectl __complete taskflow get plugin-t")


COMPLETIONS = {
    "bash": "source <(taskflow completion bash); COMP_WORDS=(taskflow get shell-t); COMP_CWORD=2; "
    "_taskflow_completion taskflow; printf '%s\\n' \"${COMPREPLY[@]}\"",
    "zsh": "autoload -Uz compinit; compinit -u -D; compadd() { :; }; "
    "_describe() { print -rl -- ${(P)5%%:*} ${(P)4%%:*}; }; _arguments() { :; }; "
    "source <(taskflow completion zsh); words=(taskflow get shell-t); CURRENT=3; "
    "compadd() { print -rl -- ${(P)@[-1]}; }; _taskflow_completion",
    "fish": "taskflow completion fish | source; complete --do-complete 'taskflow get shell-t'",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_names_from_the_server(site: Site, shell: str) -> None:
    site.out(f"taskflow submit a.b --name shell-task-{shell}")
    done = subprocess.run(
        [shell, "-c", COMPLETIONS[shell]], env=site.environ, capture_output=True, text=True, check=False
    )
    assert f"shell-task-{shell}" in done.stdout, done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(site: Site) -> None:
    done = site.shell("set -o pipefail; taskflow list -o json | head -c 1; echo ${PIPESTATUS[0]} >&2")
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
