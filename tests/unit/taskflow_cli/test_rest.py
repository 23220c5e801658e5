from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_cli.cluster.transport import Answer, Unreachable
from tests.unit.taskflow_cli.fake import Console, ago, problem

URL = "https://taskflow.test"
TASK = {
    "name": "hello",
    "namespace": "team",
    "handler": "taskflow.echo",
    "queue": "default",
    "phase": "Succeeded",
    "reason": "Succeeded",
    "message": "",
    "attempt": 1,
    "createdAt": ago(hours=5),
    "startedAt": ago(hours=4),
    "finishedAt": ago(hours=3),
}
LOGS = "team/tasks/hello/logs?attempt="
EMPTY = problem(416, "range-not-satisfiable", "the log has 4 bytes")


@pytest.fixture(autouse=True)
def _logged_in(run: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    run.environ = {"TASKFLOW_API_URL": URL, "TASKFLOW_API_TOKEN": "tf_key"}
    monkeypatch.setattr("taskflow_cli.api.logs.POLL_SECONDS", 0)


def config(run: Console) -> Path:
    return run.kubeconfig.parent / ".config" / "taskflow" / "config.yaml"


def login(run: Console, *arguments: str) -> Any:
    key = run.kubeconfig.parent / "key"
    key.write_text("tf_kept\n")
    run.rest.put("team/tasks?limit=1", {"items": []})
    run.rest.put("default/tasks?limit=1", {"items": []})
    return run("login", "--token-file", str(key), *arguments)


def test_a_login_is_kept_for_its_context_and_for_its_owner_alone(run: Console) -> None:
    run.environ = {}
    ran = login(run, "--server", URL + "/")
    assert (ran.code, ran.out, ran.err) == (0, "", f"logged in to {URL} for context dev\n")
    assert yaml.safe_load(config(run).read_text()) == {"logins": {"dev": {"server": URL, "token": "tf_kept"}}}
    assert stat.S_IMODE(config(run).stat().st_mode) == 0o600
    assert stat.S_IMODE(config(run).parent.stat().st_mode) == 0o700
    assert login(run, "--server", "https://prod.test", "--context", "prod").code == 0
    run.rest.put("team/tasks/hello/logs", b"line\n")
    assert run("logs", "hello").out == "line\n"
    assert (run.accesses[-1].server, run.accesses[-1].token) == (URL, "tf_kept")
    assert run("logs", "hello", "--context", "prod").code == 3
    assert (run.accesses[-1].server, run.accesses[-1].token) == ("https://prod.test", "tf_kept")
    assert run("logout").err == f"forgot the token for {URL}\n"
    assert list(yaml.safe_load(config(run).read_text())["logins"]) == ["prod"]
    assert run("logout").code == 3
    assert run("logs", "hello").code == 7


def test_the_credentials_of_the_kubeconfig_never_go_to_a_rest_api(run: Console) -> None:
    run.environ = {}
    assert run("logs", "hello").code == 7
    assert run("logs", "hello", "--server", URL).code == 4
    assert run.accesses == []
    login(run, "--server", URL)
    run("logs", "hello")
    assert "secret-token" not in [access.token for access in run.accesses]


def test_a_token_goes_only_to_the_server_that_it_is_for(run: Console) -> None:
    ran = run("logs", "hello", "--server", "https://other.test")
    assert (ran.code, run.accesses) == (4, [])
    assert ran.err.splitlines() == [
        "error: there is no token for https://other.test",
        "hint: log in with: taskflow login --server https://other.test",
    ]
    run.rest.put("team/tasks/hello/logs", b"")
    assert run("logs", "hello", "--server", f"{URL}/").code == 0
    assert run.accesses[-1].token == "tf_key"


def test_a_login_that_is_refused_is_not_kept(run: Console) -> None:
    run.environ = {}
    key = run.kubeconfig.parent / "key"
    key.write_text("wrong")
    run.rest.put("team/tasks?limit=1", problem(401, "unauthenticated", "the token is not known"))
    ran = run("login", "--server", URL, "--token-file", str(key))
    assert ran.code == 4
    assert ran.err.splitlines() == [
        f"error: cannot log in to {URL}: the token is not known",
        "hint: the token is wrong, revoked or has expired; log in again with: taskflow login --server URL",
        "hint: the log of the API has it as request req-1",
    ]
    assert not config(run).exists()
    run.rest.put("team/tasks?limit=1", problem(403, "forbidden", "may not list"))
    ran = run("login", "--server", URL, "--token-file", str(key))
    assert ran.code == 0
    assert ran.err.startswith("warning: the token is valid, and may not list Tasks in namespace team\n")


@pytest.mark.parametrize(
    ("server", "text", "code", "error"),
    [
        ("taskflow.test", "k", 2, "expected a URL such as https://taskflow.example.com, found 'taskflow.test'"),
        ("https://me:pass@taskflow.test", "k", 2, "expected a URL"),
        (URL, "two words", 6, "expected a token: one line without spaces"),
        (URL, "", 6, "expected a token: one line without spaces"),
    ],
)
def test_what_is_no_login(run: Console, server: str, text: str, code: int, error: str) -> None:
    key = run.kubeconfig.parent / "key"
    key.write_text(text)
    ran = run("login", "--server", server, "--token-file", str(key))
    assert ran.code == code
    assert ran.err.startswith(f"error: {error}")
    assert run.accesses == []


def test_without_a_terminal_a_token_is_not_asked_for(run: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    ran = run("login", "--server", URL)
    assert (ran.code, ran.err) == (2, "error: --token-file is missing: there is no terminal to ask for the token\n")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda text, hide_input, err: "tf_asked" if hide_input and err else "")
    run.rest.put("team/tasks?limit=1", {"items": []})
    assert run("login", "--server", URL).code == 0
    assert run.accesses[-1].token == "tf_asked"


def test_a_connection_that_others_can_read_is_warned_of(run: Console) -> None:
    assert login(run, "--server", "http://taskflow.test").err.startswith("warning: http:// is not encrypted")
    assert login(run, "--server", "http://127.0.0.1:8080").err.startswith("logged in")


@pytest.mark.parametrize(
    ("text", "mode", "error"),
    [
        ("logins: {}", 0o644, "others may read"),
        ("[", 0o600, "is no file of logins"),
        ("logins: [1]", 0o600, "is no file of logins"),
        ("logins: {dev: {server: x}}", 0o600, "is no file of logins"),
    ],
)
def test_a_file_of_logins_that_is_not_trusted(run: Console, text: str, mode: int, error: str) -> None:
    run.environ = {}
    config(run).parent.mkdir(parents=True)
    config(run).write_text(text)
    config(run).chmod(mode)
    ran = run("logs", "hello")
    assert ran.code in {1, 6}
    assert error in ran.err


def test_impersonation_is_refused_where_it_has_no_effect(run: Console) -> None:
    assert run("logs", "hello", "--as", "bob").code == 2
    assert run.accesses == []


def test_without_a_kubeconfig_the_rest_api_is_enough(run: Console) -> None:
    run.kubeconfig.unlink()
    run.rest.put("default/tasks/hello/logs?tail=5", b"x\n")
    assert run("logs", "task/hello", "--tail", "5").out == "x\n"
    run.rest.put("other/tasks/hello/logs?attempt=2", b"y\n")
    assert run("logs", "hello", "-n", "other", "--attempt", "2").out == "y\n"


def test_a_log_is_followed_over_attempts_and_each_byte_is_printed_once(run: Console) -> None:
    going, second = {**TASK, "phase": "Running"}, {**TASK, "phase": "Running", "attempt": 2}
    away = problem(503, "unavailable", "the object store is away")
    run.rest.put("team/tasks/hello", going, going, going, going, second, second, {**TASK, "attempt": 2})
    missing = problem(404, "not-found", "no log yet")
    run.rest.put(f"{LOGS}1", missing, b"one\n", away, EMPTY, b"two\n")
    run.rest.put(f"{LOGS}2", b"three\n", b"four\n")
    ran = run("logs", "hello", "-f")
    assert (ran.code, ran.out) == (0, "one\ntwo\nthree\nfour\n")
    assert ran.err.splitlines() == [
        "cannot read the log of Task 'hello': the object store is away; waiting for it",
        "attempt 2",
    ]
    ranges = [headers[0][1] for path, headers in run.rest.requests if "logs" in path]
    assert ranges == [f"bytes={offset}-" for offset in (0, 0, 4, 4, 4, 0, 6)]


def test_one_attempt_is_followed_to_its_end(run: Console) -> None:
    run.rest.put("team/tasks/hello", {**TASK, "phase": "Running"}, {**TASK, "phase": "Queued", "attempt": 2})
    run.rest.put(f"{LOGS}1", b"a\nb\n", b"c\n")
    assert run("logs", "hello", "-f", "--attempt", "1", "--tail", "1").out == "b\nc\n"


def test_of_a_retry_that_has_logged_nothing_the_attempt_before_is_followed(run: Console) -> None:
    run.rest.put("team/tasks/hello", {**TASK, "phase": "Pending", "attempt": 2}, {**TASK, "attempt": 2})
    run.rest.put(f"{LOGS}1", b"failed\n")
    run.rest.put(f"{LOGS}2", problem(404, "not-found", "no log yet"), b"better\n")
    ran = run("logs", "hello", "-f")
    assert (ran.out, ran.err) == ("failed\nbetter\n", "attempt 2\n")


def test_a_log_that_is_not_there(run: Console) -> None:
    ran = run("logs", "hello", "-f")
    assert ran.code == 3
    run.rest.put("team/tasks/hello/logs", problem(404, "not-found", "attempt 1 of Task hello has no log"))
    ran = run("logs", "hello")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines()[0] == "error: cannot read the log of Task 'hello': attempt 1 of Task hello has no log"


def test_a_terminal_gets_no_control_characters_of_a_log(run: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    run.rest.put("team/tasks/hello/logs", b"a\x1b[2J\n")
    assert run("logs", "hello").out == "a\x1b[2J\n"
    run.rest.put("team/tasks/hello/logs", b"a\x1b[2J\xff\tb\n")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run("logs", "hello").out == "a\\x1b[2J\ufffd\tb\n"


def test_an_api_that_stays_away(run: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Answer:
        raise Unreachable(URL, "Connection refused")

    monkeypatch.setattr(run.rest, "request", away)
    ran = run("logs", "hello", "-f")
    assert ran.code == 7
    assert ran.err.startswith(f"error: cannot reach {URL}: Connection refused\nhint: ")


def test_items_by_pages(run: Console) -> None:
    first = {"first": 0, "last": 4, "state": "succeeded", "attempts": 1, "result": {"n": 1}}
    second = {"first": 5, "last": 5, "state": "failed", "attempts": 3, "reason": "HandlerError",
              "errorType": "ValueError", "message": "no\nrows"}  # fmt: skip
    run.rest.put("team/tasks/hello/items?limit=1000", {"items": [first], "next": 5})
    run.rest.put("team/tasks/hello/items?limit=1000&after=5", {"items": [second], "next": None})
    assert run("items", "hello").out.splitlines() == [
        "ITEMS   STATE       ATTEMPTS   RESULT",
        '0-4     succeeded   1          {"n": 1}',
        "5       failed      3          HandlerError: ValueError: no\\nrows",
    ]
    assert [json.loads(line) for line in run("items", "hello", "-o", "jsonl").out.splitlines()] == [first, second]
    assert len(run("items", "hello", "-o", "jsonl", "--limit", "1").out.splitlines()) == 1
    run.rest.put("team/tasks/hello/items?state=failed&limit=1000", {"items": [], "next": None})
    assert run("items", "hello", "--state", "failed").err == "no failed items\n"


def test_the_history_is_a_table_and_its_json_that_of_the_rest_api(run: Console) -> None:
    path = "team/tasks?limit=50&labelSelector=a%3Db&phase=Succeeded"
    run.rest.put(path, {"items": [TASK], "nextCursor": "more"})
    run.rest.put(
        "team/tasks?limit=50&labelSelector=a%3Db&phase=Succeeded&cursor=more", {"items": [], "nextCursor": None}
    )
    listed = ("list", "--history", "-l", "a=b", "--phase", "Succeeded")
    assert run(*listed).out.splitlines() == [
        "NAME    PHASE       QUEUE     ATTEMPT   PROGRESS   REASON      AGE",
        "hello   Succeeded   default   1                    Succeeded   5h",
    ]
    assert run(*listed, "-o", "wide").out.splitlines()[1].split()[-2:] == ["taskflow.echo", "60m"]
    assert json.loads(run(*listed, "-o", "json").out) == {"items": [TASK]}
    assert run(*listed, "-o", "name").out == "task.taskflow.dev/hello\n"
    assert run("list", "--history", "-A").code == 2
    assert run("list", "--server", URL).code == 2
    run.rest.put("team/tasks?limit=7", {"items": []})
    assert run("list", "--history", "--limit", "7").err == "the history has no such Tasks in namespace team\n"


@pytest.mark.parametrize("source", ["hello", ":x", "hello:"])
def test_cp_needs_a_task_and_an_output(run: Console, source: str) -> None:
    ran = run("cp", source, ".")
    assert (ran.code, ran.err) == (2, f"error: expected TASK:OUTPUT, found {source!r}\n")


def test_cp_into_a_folder_that_is_not_there(run: Console, tmp_path: Path) -> None:
    run.rest.put("team/tasks/hello/artifacts/t.csv", {"url": "http://s3.test/x", "sha256": "0"})
    assert run("cp", "hello:t.csv", str(tmp_path / "nowhere" / "t.csv")).code == 3


def test_a_refusal_names_what_is_wrong(run: Console) -> None:
    wrong = [{"location": "query", "pointer": "/limit", "detail": "at most 500"}]
    run.rest.put("team/tasks?limit=50", problem(422, "invalid", "the request is invalid", errors=wrong))
    ran = run("list", "--history")
    assert ran.code == 6
    assert ran.err.splitlines()[0] == "error: cannot list the history: the request is invalid: /limit: at most 500"
