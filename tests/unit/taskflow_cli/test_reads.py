"""What reads print, at two widths and as JSON; written anew with GOLDEN=write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_cli.output.tables import Screen
from taskflow_cli.output.text import width as cells
from tests.unit.taskflow_cli.fake import Console, FakeServer, ago, answer, pool, schedule, status, task

UNSEEN = "the operator has not looked at it for 300 s; is it running, and does it serve this namespace?"
ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
ERROR = {
    "attempt": 3,
    "reason": "HandlerError",
    "type": "ZeroDivisionError",
    "message": "division by zero",
    "trace": '  File "reports.py", line 7, in summarise\n    return total / count\n',
}


RUNNING = {
    "phase": "Running",
    "reason": "Started",
    "message": "a worker runs it",
    "attempt": 1,
    "worker": "main-6d4f9c7b8-x2x9p/ForkPoolWorker-1",
    "startTime": ago(minutes=4),
    "progress": {"done": 30, "total": 200, "message": "reading\x1b[31m rows"},
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Valid", "lastTransitionTime": ago(minutes=5)},
        {
            "type": "Running",
            "status": "True",
            "reason": "Started",
            "message": "a worker runs it",
            "lastTransitionTime": ago(minutes=4),
        },
    ],
}
FAILED = {
    "phase": "Failed",
    "reason": "HandlerError",
    "message": "attempt 3 of 3 failed: division by zero",
    "attempt": 3,
    "duration": "12.5s",
    "completionTime": ago(minutes=1),
    "lastError": ERROR,
}
SUCCEEDED = {
    "phase": "Succeeded",
    "reason": "Succeeded",
    "attempt": 1,
    "duration": "0.42s",
    "startTime": ago(hours=3),
    "completionTime": ago(hours=3),
    "result": {"rows": 7, "city": "Köln"},
    "outputs": [{"name": "table.csv", "key": "team/uid-done/1/table.csv", "sizeBytes": 1234}],
}
QUEUED = {"phase": "Queued", "reason": "WaitingForWorker", "message": "no worker has taken it yet", "attempt": 1}
ARRAY = {"phase": "Running", "attempt": 1, "array": {"items": "512/1000, 3 failed", "failedIndexes": "3,7-8"}}


@pytest.fixture
def filled(server: FakeServer) -> FakeServer:
    server.add(
        task("running", status=RUNNING, kwargs={"year": 2026}),
        task("a-task-whose-name-is-as-long-as-names-of-generated-tasks-are-now-and-then-x7k2p", status=FAILED),
        task("done", status=SUCCEEDED, handler="weather.plot_日本"),
        task("waiting", status=QUEUED, dependsOn=[{"name": "done"}, {"name": "nowhere", "outcome": "Finished"}]),
        task("items", status=ARRAY, array={"count": 1000}),
        task("new"),
        task("elsewhere", namespace="other", status={"phase": "Suspended"}),
        pool(
            "main",
            {
                "readyReplicas": 2,
                "desiredReplicas": 2,
                "queued": 5,
                "busySlots": 4,
                "slots": 4,
                "conditions": [{"type": "Ready", "status": "True", "reason": "AsDesired", "message": "2 of 2 ready"}],
            },
            scaling={"minReplicas": 1, "maxReplicas": 10},
            concurrency=2,
            pool="Prefork",
        ),
        pool("night", queues=["nightly", "reports"], paused=True),
    )
    server.add(
        schedule(
            "nightly-report",
            {
                "schedule": "30 2 * * MON-FRI; 0 12 * * SAT",
                "activeCount": 1,
                "lastScheduleTime": ago(hours=9),
                "lastOutcome": "Active",
                "nextScheduleTime": "2026-12-01T01:30:00Z",
                "skipped": 2,
                "missed": 0,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Scheduled", "message": "as scheduled"}],
            },
            timeZone="Europe/Berlin",
            concurrencyPolicy="Forbid",
        ),
        schedule("paused", {"schedule": "every 0:05:00"}, suspend=True),
    )
    event = {
        "kind": "Event",
        "metadata": {"name": "e1", "namespace": "team"},
        "regarding": {"uid": "uid-running"},
        "type": "Warning",
        "reason": "AttemptLost",
        "note": "the worker of attempt 1 stopped renewing its lease",
        "eventTime": ago(minutes=2),
    }
    server.add(event)
    return server


READS = {
    "list": ["list"],
    "list-wide": ["list", "-o", "wide"],
    "list-all": ["list", "-A", "--sort-by", ".status.phase"],
    "get": ["get", "running", "tasks.taskflow.dev/done"],
    "describe-running": ["describe", "running"],
    "describe-failed": ["describe", "a-task-whose-name-is-as-long-as-names-of-generated-tasks-are-now-and-then-x7k2p"],
    "describe-done": ["describe", "done"],
    "why-waiting": ["why", "waiting"],
    "why-failed": ["why", "a-task-whose-name-is-as-long-as-names-of-generated-tasks-are-now-and-then-x7k2p"],
    "pool-list": ["pool", "list"],
    "pool-list-wide": ["pool", "list", "-o", "wide"],
    "schedule-list": ["schedule", "list"],
    "schedule-list-wide": ["schedule", "list", "-A", "-o", "wide"],
    "version": ["version"],
}
PROGRAMS = {
    "list.json": ["list", "-o", "json", "--phase", "Running"],
    "get.json": ["get", "running", "-o", "json"],
    "get.yaml": ["get", "running", "-o", "yaml"],
    "list.name": ["list", "-o", "name"],
    "pool-list.json": ["pool", "list", "-o", "json"],
}


def check(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", READS)
def test_a_read_on_a_terminal(run: Console, name: str, width: int) -> None:
    run.screen = Screen(width)
    ran = run(*READS[name])
    assert (ran.code, ran.err) == (0, "")
    check(f"{name}.{width}.txt", ran.out)
    if name.startswith(("list", "get", "pool", "schedule")) and not (width == 80 and "wide" in name):
        assert max(map(cells, ran.out.splitlines())) <= width


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_read_for_a_program(run: Console, name: str) -> None:
    ran = run(*PROGRAMS[name])
    assert (ran.code, ran.err) == (0, "")
    check(name, ran.out)


@pytest.mark.usefixtures("filled")
def test_json_goes_through_jq(run: Console) -> None:
    out = run("list", "-o", "json").out
    done = subprocess.run(
        ["jq", "-r", '.items[] | select(.status.phase=="Failed") | .status.lastError.type'],
        input=out,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ZeroDivisionError\n"


@pytest.mark.usefixtures("filled")
def test_nothing_is_shortened_in_a_pipe(run: Console) -> None:
    assert "names-of-generated-tasks-are-now-and-then-x7k2p" in run("list").out
    assert "\x1b" not in run("list").out


@pytest.mark.usefixtures("filled")
def test_phases_have_colours_on_a_terminal_and_control_characters_of_others_do_nothing(run: Console) -> None:
    run.screen = Screen(160, colour=True)
    assert "\x1b[31mFailed\x1b[0m" in run("list").out
    assert "reading\\x1b[31m rows" in run("describe", "running").out


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--phase", "Pending"], ["new"]),
        (["--phase", "running", "--phase", "Queued"], ["items", "running", "waiting"]),
        (["--handler", "weather.plot_日本"], ["done"]),
        (["--limit", "2", "--sort-by", "{.metadata.name}"], ["a-task", "done"]),
        (["--queue", "other"], []),
    ],
)
def test_filters(run: Console, arguments: list[str], names: list[str]) -> None:
    found = json.loads(run("list", "-o", "json", *arguments).out)["items"]
    assert [each["metadata"]["name"][:6] for each in found] == [name[:6] for name in names]


def test_a_long_list_is_read_in_pages(server: FakeServer, run: Console) -> None:
    server.add(*(task(f"t{number:04}") for number in range(1201)))
    assert len(run("list", "-o", "name").out.splitlines()) == 1201
    assert len(server.requests) == 3


def test_an_empty_list_says_so_beside_the_data(run: Console) -> None:
    ran = run("list")
    assert (ran.code, ran.out, ran.err) == (0, "", "no Tasks in namespace team\n")
    assert json.loads(run("list", "-o", "json").out)["items"] == []


@pytest.mark.usefixtures("filled")
def test_without_the_right_to_read_events_a_description_says_so(server: FakeServer, run: Console) -> None:
    server.refusals["GET events"] = status(403, "Forbidden", "no")
    ran = run("describe", "running")
    assert ran.code == 0
    assert ran.out.endswith("Events: you may not read them here\n")


@pytest.mark.usefixtures("filled")
def test_a_task_that_nobody_looks_at_and_no_pool_serves(server: FakeServer, run: Console) -> None:
    server.add(task("lost", queue="reprots"))
    assert run("why", "lost").out.splitlines() == [
        f"lost is Pending: {UNSEEN}",
        "no WorkerPool serves queue 'reprots'; served queues: default, nightly, reports",
    ]


def test_a_cluster_without_taskflow(server: FakeServer, run: Console) -> None:
    server.refusals["GET tasks"] = answer(404, {"kind": "Status", "reason": "NotFound", "details": {}})
    ran = run("list")
    assert (ran.code, ran.out) == (7, "")
    assert ran.err.splitlines() == [
        "error: cannot list tasks: the cluster does not serve tasks.taskflow.dev",
        "hint: is TaskFlow installed there, and is this the right context? see: kubectl config get-contexts",
    ]
    assert run("get", "x").code == 7


def unknown(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Fields of a value that its schema does not have."""
    if isinstance(value, list):
        return [each for item in value for each in unknown(item, schema.get("items", {}), f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = [f"{path}.{name}" for name in value if name not in schema["properties"]]
    known = [(name, each) for name, each in value.items() if name in schema["properties"]]
    return found + [
        each for name, inner in known for each in unknown(inner, schema["properties"][name], f"{path}.{name}")
    ]


def test_what_is_shown_here_has_the_fields_of_the_resources(filled: FakeServer) -> None:
    for plural in ("tasks", "workerpools", "taskschedules"):
        crd = yaml.safe_load((ROOT / "crds" / f"{plural}.taskflow.dev.yaml").read_text())
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        found = [each for (kind, _, _), each in filled.objects.items() if kind == plural]
        assert found
        for body in found:
            for part in ("spec", "status"):
                assert unknown(body.get(part, {}), schema[part], f"{plural}.{part}") == []
