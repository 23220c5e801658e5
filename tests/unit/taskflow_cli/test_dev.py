from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskflow_cli.api.client import Rest
from taskflow_cli.cluster.client import Kube
from taskflow_cli.errors import CliError, Exit
from taskflow_cli.local_mode import LocalMode
from taskflow_cli.streaming import LogStream
from tests.unit.taskflow_cli.fake import Console, FakeRest, FakeServer, problem, task

VIEW = {"attempt": 1, "phase": "Succeeded", "result": 7}


def local(tmp_path: Path, status: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> LocalMode:
    """Local mode with a program of this test that prints a status."""
    program = tmp_path / "taskflow-local"
    lines = f"case $1 in status) cat <<'E'\n{status}\nE\n;; env) printf \"export A='b c'\\nexport PATH=/x\\n\";; esac"
    program.write_text(f"#!/bin/sh\n{lines}\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return LocalMode({"PATH": "/usr/bin:/bin", "KEPT": "1"}, tmp_path / "state")


HEAD = "COMPONENT                STATE      PID      ADDRESS\n"


@pytest.mark.parametrize(
    ("status", "running"),
    [
        ("", False),
        (HEAD + "etcd                     stopped    -        http://127.0.0.1:1", False),
        (HEAD + "etcd                     running    12       http://127.0.0.1:1", True),
        (HEAD + "api                      not ready  12       http://127.0.0.1:1", True),
    ],
)
def test_whether_local_mode_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, running: bool) -> None:
    assert local(tmp_path, status, monkeypatch, code=4).running() is running


def test_the_environment_of_local_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local(tmp_path, "", monkeypatch).environment() == {"PATH": "/x", "KEPT": "1", "A": "b c"}
    with pytest.raises(CliError, match="local mode does not run"):
        local(tmp_path, "", monkeypatch, code=1).environment()
    with pytest.raises(CliError, match=r"taskflow-local up failed: exit code 1"):
        local(tmp_path, "", monkeypatch, code=1).up([tmp_path])


def test_without_local_mode_the_hint_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(CliError, match="taskflow-local is not installed") as caught:
        LocalMode({"PATH": "/nowhere"}).running()
    assert caught.value.code is Exit.UNREACHABLE
    assert caught.value.hint == "pip install 'taskflow-operator[cli,local]'"


def test_a_file_that_is_not_there(run: Console) -> None:
    assert run("dev", "/nowhere/mine.py").code == 2
    assert "Usage: taskflow dev" in run("dev", "--help").out


def event(kind: str, body: dict[str, Any]) -> bytes:
    body = {**body, "metadata": {**body["metadata"], "resourceVersion": "9"}}
    return json.dumps({"type": kind, "object": body}).encode()


def test_logs_of_all_tasks_come_behind_their_names(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = FakeRest()
    rest.put("team/tasks/a", VIEW)
    rest.put("team/tasks/a/logs?attempt=1", b"one\ntw")
    rest.put("team/tasks/b", {**VIEW, "phase": "Failed", "reason": "HandlerError", "message": "no\x1b rows"})
    rest.put("team/tasks/b/logs?attempt=1", b"")
    rest.put("team/tasks/c", problem(404, "not-found", "gone"))
    rest.put("team/tasks/d", problem(403, "forbidden", "not yours"))
    events = [event("ADDED", task(name)) for name in "abcd"] + [
        event("DELETED", task("e")),
        event("MODIFIED", task("a")),
    ]
    streams = iter([events])

    def lines(path: str, seconds: float) -> Iterator[bytes]:
        assert "fieldSelector" not in path
        found = next(streams, None)
        if found is None:
            raise CliError("the test is over")
        return iter(found)

    shown: list[str] = []
    threads: list[Any] = []

    class Now:
        """A thread that runs at once."""

        def __init__(self, target: Any, args: tuple[str], daemon: bool) -> None:
            assert daemon
            self._target, self._args = target, args

        def start(self) -> None:
            threads.append(self)
            self._target(*self._args)

    monkeypatch.setattr("threading.Thread", Now)
    monkeypatch.setattr(server, "lines", lines)
    with pytest.raises(CliError, match="the test is over"):
        LogStream(Kube(server, "team"), lambda: Rest(rest, "team"), shown.append).run()
    assert len(threads) == 4
    assert shown == [
        "a | one",
        "a | tw",
        "a | succeeded: 7",
        "b | failed: HandlerError: no\\x1b rows",
        "d | error: cannot read the log of Task 'd': not yours",
    ]
