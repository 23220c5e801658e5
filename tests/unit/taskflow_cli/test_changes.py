from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_cli.cluster.kubeconfig import Impersonation
from tests.unit.taskflow_cli.fake import Console, FakeServer, answer, pool, status, task

DONE = {"phase": "Succeeded", "result": 3, "duration": "0.4s"}


def created(server: FakeServer) -> list[dict[str, Any]]:
    return [each for (kind, _, _), each in server.objects.items() if kind == "tasks"]


def test_a_handler_with_parameters_becomes_a_task(server: FakeServer, run: Console) -> None:
    ran = run(
        *("submit", "reports.Summarise_year", "-p", "year=2026", "-p", "name=Zürich", "-p", "big=NaN", "-p", 'n="1"'),
        *("-p", "url=a=b", "-p", 'tags=["a"]', "--arg", "1", "--arg", "x", "-q", "nightly", "--priority", "3"),
        *("--max-attempts", "1", "--label", "team=billing"),
    )
    assert (ran.code, ran.out, ran.err) == (0, "task/summarise-year-x7k2p created\n", "")
    (made,) = created(server)
    assert made["spec"] == {
        "handler": "reports.Summarise_year",
        "args": [1, "x"],
        "kwargs": {"year": 2026, "name": "Zürich", "big": "NaN", "n": "1", "url": "a=b", "tags": ["a"]},
        "queue": "nightly",
        "priority": 3,
        "retryPolicy": {"maxAttempts": 1},
    }
    assert made["metadata"]["labels"] == {"team": "billing"}
    assert made["metadata"]["generateName"] == "summarise-year-"


def test_a_file_is_changed_by_options(server: FakeServer, run: Console, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        "apiVersion: taskflow.dev/v1alpha1\nkind: Task\nmetadata: {generateName: a-}\n"
        "spec: {handler: a.b, kwargs: {x: 1, y: 2}, retryPolicy: {maxAttempts: 5, backoffSeconds: 1}}\n"
    )
    assert run("submit", "-f", str(path), "-p", "y=3", "--name", "mine", "--max-attempts", "2").code == 0
    (made,) = created(server)
    assert made["metadata"]["name"] == "mine"
    assert made["spec"] == {
        "handler": "a.b",
        "kwargs": {"x": 1, "y": 3},
        "retryPolicy": {"maxAttempts": 2, "backoffSeconds": 1},
    }


def test_several_documents_become_several_tasks(run: Console, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text("\n---\n".join(json.dumps(task(name)) for name in ("a", "b")))
    assert run("submit", "-f", str(path), "-o", "name").out == "task.taskflow.dev/a\ntask.taskflow.dev/b\n"
    ran = run("submit", "-f", str(path), "--name", "c")
    assert (ran.code, ran.err) == (2, "error: --name fits one Task, found 2\n")


def test_a_dry_run_prints_what_would_be_sent_and_sends_nothing(server: FakeServer, run: Console) -> None:
    ran = run("submit", "a.b", "-p", "x=1", "--dry-run", "client")
    assert yaml.safe_load(ran.out)["spec"] == {"handler": "a.b", "kwargs": {"x": 1}}
    assert server.requests == []
    assert run("submit", "a.b", "--dry-run", "server").out == "task/b-x7k2p would be created (checked by the server)\n"
    assert created(server) == []


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["submit"], 2, "say what to run: a handler, or a file with -f"),
        (["submit", "a", "-p", "x"], 2, "expected -p key=value, found 'x'"),
        (["submit", "a", "-p", "x=1", "-p", "x=2"], 2, "-p x is given twice"),
        (["submit", "a", "--label", "x"], 2, "expected --label key=value, found 'x'"),
        (["submit", "a", "--timeout", "5m"], 2, "--timeout needs --wait or --watch"),
        (
            ["submit", "a", "--wait", "--timeout", "soon"],
            2,
            "expected a duration such as 90s, 5m or 1h30m, found 'soon'",
        ),
        (["submit", "a", "--wait", "--dry-run", "client"], 2, "--dry-run creates nothing to wait for"),
        (["submit", "-f", "/nowhere/x.yaml"], 3, "/nowhere/x.yaml does not exist"),
        (["get", "pod/x"], 2, "expected the name of a Task, found 'pod/x'"),
        (["get", "x", "-o", "jsn"], 2, "expected -o table, wide, name, json, yaml or jsonpath=TEMPLATE, found 'jsn'"),
        (["get", "x", "-o", "jsonpath={.a[}"], 2, "invalid JSONPath"),
        (["list", "--context", "nope"], 3, "context 'nope' does not exist: known: dev, prod"),
        (["list", "--as-group", "a"], 2, "--as-group needs --as"),
        (["cancel"], 2, "say which Tasks to cancel: names, or labels with -l"),
        (["cancel", "a", "-l", "b=c"], 2, "say which Tasks to cancel: names, or labels with -l"),
    ],
)
def test_wrong_usage_is_one_line_and_a_code(run: Console, arguments: list[str], code: int, error: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"error: {error}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "is no YAML"),
        ("", "has no Task"),
        ("- 1", "expected a Task, found list"),
        (
            "kind: Job\napiVersion: batch/v1",
            "expected apiVersion taskflow.dev/v1alpha1 and kind Task, found batch/v1 and Job",
        ),
        ("kind: Task\napiVersion: taskflow.dev/v1alpha1\nmetadata: {name: a}", "spec is missing"),
        (
            "kind: Task\napiVersion: taskflow.dev/v1alpha1\nspec: {}",
            "metadata.name or metadata.generateName is missing",
        ),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_sent(
    server: FakeServer, run: Console, tmp_path: Path, text: str, error: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(json.dumps(task("good")) + "\n---\n" + text if text.startswith("kind") else text)
    ran = run("submit", "-f", str(path))
    assert (ran.code, server.requests) == (6, [])
    assert error in ran.err


def test_a_file_of_another_namespace_is_refused(server: FakeServer, run: Console, tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task("a", namespace="other")))
    ran = run("submit", "-f", str(path))
    assert ran.code == 6
    assert ran.err.splitlines() == [
        "error: the file names namespace other, and the command goes to team",
        "hint: add: -n other",
    ]
    assert run("submit", "-f", str(path), "-n", "other").code == 0


def test_what_the_api_server_refuses_is_said_by_field(server: FakeServer, run: Console) -> None:
    causes = [
        {"field": "spec.priority", "message": "must be at most 9"},
        {"field": "spec.queue", "message": "too long"},
    ]
    server.refusals["POST tasks"] = status(422, "Invalid", "Task is invalid: ...", causes=causes)
    ran = run("submit", "a.b", "--name", "x")
    assert ran.code == 6
    assert ran.err == "error: cannot create Task 'x': spec.priority: must be at most 9; spec.queue: too long\n"


@pytest.mark.parametrize(("http", "code"), [(401, 4), (403, 4), (409, 5), (429, 7), (500, 7), (503, 7), (418, 1)])
def test_a_refusal_has_its_code(server: FakeServer, run: Console, http: int, code: int) -> None:
    server.refusals["GET tasks"] = status(http, "Refused", "because", "x")
    assert run("list").code == code


def test_an_existing_name(server: FakeServer, run: Console) -> None:
    server.add(task("a"))
    ran = run("submit", "a.b", "--name", "a")
    assert ran.code == 5
    assert ran.err.splitlines()[1] == "hint: choose another name, or delete the one that is there"


def test_a_typing_error_gets_a_suggestion(server: FakeServer, run: Console) -> None:
    server.add(task("hello"))
    ran = run("get", "helo")
    assert (ran.code, ran.err.splitlines()) == (
        3,
        [
            "error: Task 'helo' was not found in namespace team",
            "hint: did you mean hello?",
            "hint: see: taskflow list -n team",
        ],
    )
    assert "'list'" in run("lits").err
    assert "'--namespace'" in run("list", "--namespac", "x").err


def test_cancel_suspend_and_resume_change_one_field(server: FakeServer, run: Console) -> None:
    server.add(task("a", cancel=False, suspend=False))
    assert run("suspend", "task/a").out == "task/a suspended\n"
    assert server.objects["tasks", "team", "a"]["spec"]["suspend"] is True
    assert run("resume", "a").out == "task/a resumed\n"
    assert server.objects["tasks", "team", "a"]["spec"]["suspend"] is False
    assert run("cancel", "a").out == "task/a is being cancelled\n"
    assert server.objects["tasks", "team", "a"]["spec"]["cancel"] is True


@pytest.mark.parametrize("verb", ["cancel", "suspend", "resume"])
def test_what_has_ended_is_not_changed_and_the_others_are(server: FakeServer, run: Console, verb: str) -> None:
    server.add(task("done", status=DONE), task("open"))
    ran = run(verb, "done", "nowhere", "open")
    assert ran.code == 3
    assert ran.out.startswith("task/open ")
    assert ran.err.splitlines()[:2] == [
        f"error: cannot {verb} Task 'done': it has ended already (Succeeded)",
        "error: Task 'nowhere' was not found in namespace team",
    ]


def test_labels_select_what_is_open_and_ask_first(server: FakeServer, run: Console) -> None:
    for name, state in (("a", {}), ("b", DONE), ("c", {})):
        body = task(name, status=state)
        body["metadata"]["labels"] = {"team": "billing"}
        server.add(body)
    server.add(task("other"))
    ran = run("cancel", "-l", "team=billing")
    assert (ran.code, ran.err) == (2, "error: not without --yes: this would cancel 2 Tasks\n")
    assert run("cancel", "-l", "team=billing", "--yes").out == "task/a is being cancelled\ntask/c is being cancelled\n"
    assert run("delete", "-l", "team=billing", "--yes").out == "".join(f"task/{each} deleted\n" for each in "abc")
    assert [each["metadata"]["name"] for each in created(server)] == ["other"]
    assert run("delete", "-l", "team=billing", "--yes").err == "no Tasks with team=billing in namespace team\n"


def test_a_retry_is_a_new_task_of_the_same_specification(server: FakeServer, run: Console) -> None:
    old = task("old", status={"phase": "Failed"}, kwargs={"x": 1}, cancel=True, suspend=False)
    old["metadata"] |= {"labels": {"a": "b"}, "annotations": {"kept": "not"}}
    server.add(old, task("open"))
    assert run("retry", "old").out == "task/old-x7k2p created\n"
    new = server.objects["tasks", "team", "old-x7k2p"]
    assert new["spec"] == {"handler": "reports.summarise", "queue": "default", "kwargs": {"x": 1}}
    assert new["metadata"]["labels"] == {"a": "b"}
    assert new["metadata"]["annotations"] == {"taskflow.dev/retried-from": "uid-old"}
    ran = run("retry", "open")
    assert (ran.code, ran.err.splitlines()[0]) == (5, "error: cannot retry Task 'open': it has not ended (Pending)")
    assert run("retry", "old", "--items", "failed").code == 2


def test_a_retry_of_the_failed_items_of_an_array(server: FakeServer, run: Console) -> None:
    server.add(task("array", status={"phase": "Failed"}, array={"count": 9, "indexes": "1-5", "maxFailures": 1}))
    assert run("retry", "array", "--items", "failed", "--name", "again").code == 0
    made = server.objects["tasks", "team", "again"]
    assert made["spec"]["array"] == {"count": 9, "maxFailures": 1, "failedOf": "uid-array"}


def test_pools_are_paused_drained_and_resumed(server: FakeServer, run: Console) -> None:
    server.add(pool("main"))
    assert run("pool", "pause", "workerpool/main").out == "workerpool/main paused\n"
    assert server.objects["workerpools", "team", "main"]["spec"]["paused"] is True
    assert run("pool", "drain", "main").out == "workerpool/main is draining\n"
    assert "Draining" in run("pool", "list").out
    assert run("pool", "resume", "main").out == "workerpool/main resumed\n"
    spec = server.objects["workerpools", "team", "main"]["spec"]
    assert (spec["paused"], spec["drain"]) == (False, False)
    assert run("pool", "pause", "nowhere").code == 3


def test_a_wait_ends_with_the_outcome(server: FakeServer, run: Console) -> None:
    server.later = [
        task(
            "b-x7k2p", status={"phase": "Running", "attempt": 1, "progress": {"done": 1, "total": 4, "message": "on"}}
        ),
        task("b-x7k2p", status=DONE),
    ]
    ran = run("submit", "a.b", "--watch")
    assert (ran.code, ran.out) == (0, "task/b-x7k2p succeeded in 0.4s: 3\n")
    assert ran.err.splitlines() == [
        "task/b-x7k2p created",
        "b-x7k2p: Pending",
        "b-x7k2p: Running, attempt 1, 1/4 (25%), on",
    ]


def test_a_failed_task_has_its_exit_code_and_says_why(server: FakeServer, run: Console) -> None:
    error = {"attempt": 1, "reason": "HandlerError", "type": "ValueError", "message": "no rows"}
    server.add(task("bad", status={"phase": "Failed", "reason": "HandlerError", "lastError": error}))
    server.add(task("stopped", status={"phase": "Cancelled", "reason": "Cancelled", "message": "spec.cancel is true"}))
    server.add(task("good", status=DONE))
    ran = run("wait", "good", "stopped", "bad")
    assert ran.code == 10
    assert ran.out.splitlines() == ["task/good succeeded in 0.4s: 3", "task/stopped cancelled", "task/bad failed"]
    assert ran.err.splitlines() == [
        "error: Task 'bad' failed: HandlerError: ValueError: no rows",
        "hint: see: taskflow describe bad -n team",
    ]
    assert run("wait", "good", "stopped").code == 11
    ran = run("wait", "good", "-o", "jsonpath={.status.result}")
    assert (ran.code, ran.out) == (0, "3\n")


def test_a_wait_gives_up_in_time(server: FakeServer, run: Console) -> None:
    server.add(task("slow"))
    ran = run("wait", "slow", "--timeout", "0")
    assert ran.code == 124
    assert ran.err.splitlines()[1] == "hint: it goes on; see why with: taskflow why slow"


def test_ctrl_c_leaves_the_task_and_says_how_to_stop_it(
    server: FakeServer, run: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: str, seconds: float) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "lines", interrupted)
    ran = run("submit", "a.b", "--wait")
    assert ran.code == 130
    assert ran.err.splitlines() == [
        "task/b-x7k2p created",
        "error: interrupted: b-x7k2p goes on",
        "hint: stop with: taskflow cancel b-x7k2p -n team",
    ]
    assert server.objects["tasks", "team", "b-x7k2p"]["spec"].get("cancel") is None


def test_a_task_that_is_deleted_while_it_is_waited_for(
    server: FakeServer, run: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(task("a"))
    gone = json.dumps({"type": "DELETED", "object": task("a")}).encode()
    monkeypatch.setattr(server, "lines", lambda path, seconds: iter([gone]))
    assert run("wait", "a").err == "error: Task 'a' was deleted from namespace team before its end\n"
    ended = json.dumps({"type": "DELETED", "object": task("a", status=DONE)}).encode()
    monkeypatch.setattr(server, "lines", lambda path, seconds: iter([ended]))
    assert run("wait", "a").code == 0


def test_a_watch_that_is_cut_or_expired_is_begun_again(
    server: FakeServer, run: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskflow_cli.tasks.waiting._PAUSE_SECONDS", 0)
    server.add(task("a"))
    streams = iter([[b'{"type": "MODIF'], [json.dumps({"type": "ERROR", "object": {"code": 410}}).encode()]])

    def lines(path: str, seconds: float) -> Any:
        stream = next(streams, None)
        if stream is None:
            server.add(task("a", status=DONE))
        return iter(stream or [])

    monkeypatch.setattr(server, "lines", lines)
    assert run("wait", "a").code == 0


def test_an_api_server_that_is_away_for_a_moment_is_waited_for(
    server: FakeServer, run: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskflow_cli.tasks.waiting._PAUSE_SECONDS", 0)
    server.add(task("a"))
    answers = iter(range(3))

    def lines(path: str, seconds: float) -> Any:
        # Nothing changed; from now on the server is away, and then back with the end.
        server.refusals["GET tasks"] = answer(503, {"message": "starting"})
        return iter([])

    request = server.request

    def counted(method: str, path: str, body: bytes | None = None, content_type: str = "", more: Any = ()) -> Any:
        if server.refusals and next(answers, None) is None:
            server.refusals.clear()
            server.add(task("a", status=DONE))
        return request(method, path, body, content_type)

    monkeypatch.setattr(server, "lines", lines)
    monkeypatch.setattr(server, "request", counted)
    ran = run("wait", "a")
    assert ran.code == 0
    assert ran.err == "error: cannot read Task 'a': starting; waiting for it\n".removeprefix("error: ")


def test_whom_and_where_options_say(run: Console) -> None:
    run("list", "--context", "prod", "--as", "bob", "--as-group", "a", "--as-group", "b")
    run("list", "-n", "other")
    first, second = run.accesses
    assert (first.context, first.namespace, first.impersonation) == (
        "prod",
        "default",
        Impersonation("bob", ("a", "b")),
    )
    assert (second.context, second.namespace) == ("dev", "other")
    assert "secret-token" not in repr(first)
