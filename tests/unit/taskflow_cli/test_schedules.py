from __future__ import annotations

import json
from typing import Any

import pytest

from taskflow_cli.schedules import digest, run_name
from taskflow_core.domain.manifests import run_now_name
from taskflow_operator.schedules.rules.status import token_digest
from tests.unit.taskflow_cli.fake import Console, FakeServer, ago, schedule, task

URL = "https://taskflow.test"


@pytest.fixture(autouse=True)
def _without_pauses(run: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    run.environ = {"TASKFLOW_API_URL": URL, "TASKFLOW_API_TOKEN": "tf_key"}
    monkeypatch.setattr("taskflow_cli.commands.schedule._POLL_SECONDS", 0)
    monkeypatch.setattr("secrets.token_hex", lambda _: "token")


def test_the_operator_names_the_task_of_a_token_as_this_program_expects() -> None:
    assert run_name("nightly", "token") == run_now_name("nightly", "token")
    assert digest("token") == token_digest("token")


def test_suspend_and_resume(server: FakeServer, run: Console) -> None:
    server.add(schedule("a"), schedule("b"))
    assert (
        run("schedule", "suspend", "a", "taskschedule/b").out == "taskschedule/a suspended\ntaskschedule/b suspended\n"
    )
    assert server.objects["taskschedules", "team", "b"]["spec"]["suspend"] is True
    assert run("schedule", "resume", "a").out == "taskschedule/a resumed\n"
    assert server.objects["taskschedules", "team", "a"]["spec"]["suspend"] is False
    ran = run("schedule", "suspend", "c")
    assert ran.code == 3


def test_a_run_is_asked_for_by_a_token(server: FakeServer, run: Console) -> None:
    server.add(schedule("nightly"))
    name = run_name("nightly", "token")
    assert run("schedule", "run", "nightly").out == f"task/{name} asked for\n"
    meta = server.objects["taskschedules", "team", "nightly"]["metadata"]
    assert meta["annotations"] == {"taskflow.dev/run-now": "token"}
    ran = run("schedule", "run", "nightly")
    assert ran.code == 5
    assert ran.err.splitlines()[0] == (
        f"error: cannot run TaskSchedule 'nightly': {name} was asked for, and the operator has not created it yet"
    )
    server.add(schedule("nightly", {"runNow": digest("token")}))
    assert run("schedule", "run", "nightly", "-o", "name").out == f"task.taskflow.dev/{name}\n"


def test_of_two_who_ask_at_once_one_is_told(server: FakeServer, run: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(schedule("nightly"))

    def token(_: int) -> str:
        server.add(schedule("nightly"))
        return "token"

    monkeypatch.setattr("secrets.token_hex", token)
    assert run("schedule", "run", "nightly").code == 5


def created(server: FakeServer, phase: str) -> Any:
    def operate(body: Any) -> None:
        server.add(task(run_name("nightly", "token"), status={"phase": phase, "reason": phase, "result": 7}))

    return operate


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 10), ("Cancelled", 11)])
def test_a_run_is_waited_for(server: FakeServer, run: Console, phase: str, code: int) -> None:
    server.add(schedule("nightly"))
    server.after_patch = created(server, phase)
    ran = run("schedule", "run", "nightly", "--wait", "-o", "jsonpath={.status.result}")
    assert (ran.code, ran.out) == (code, "7\n")


def test_a_run_that_the_policy_forbids(server: FakeServer, run: Console) -> None:
    server.add(schedule("nightly"))
    server.after_patch = lambda _: server.add(schedule("nightly", {"runNow": digest("token")}))
    ran = run("schedule", "run", "nightly", "--wait")
    assert ran.code == 5
    assert "concurrencyPolicy is Forbid" in ran.err


def test_a_run_that_nobody_creates(server: FakeServer, run: Console) -> None:
    server.add(schedule("nightly"))
    ran = run("schedule", "run", "nightly", "--wait", "--timeout", "0")
    assert ran.code == 124
    assert "does the operator run?" in ran.err


def test_what_a_run_cannot_print(run: Console) -> None:
    assert run("schedule", "run", "nightly", "-o", "json").code == 2
    assert run("schedule", "run", "nightly", "--timeout", "5s").code == 2


def test_the_next_times_are_local_and_those_of_the_schedule(run: Console) -> None:
    found = {
        "items": [{"scheduledTime": "2026-12-01T01:30:00Z", "localTime": "2026-12-01T10:30:00+09:00"}],
        "timeZone": "Asia/Tokyo",
        "suspended": True,
    }
    run.rest.put("team/schedules/nightly/next?count=10", found)
    ran = run("schedule", "next", "nightly")
    assert ran.out.splitlines() == [
        "TIME                      IN    IN ITS ZONE",
        "2026-12-01 02:30:00 CET   13h   2026-12-01T10:30:00+09:00",
    ]
    assert ran.err == "nightly is suspended: it runs at none of them until it is resumed\n"
    assert json.loads(run("schedule", "next", "nightly", "-o", "json").out) == found


def test_the_past_of_a_schedule(run: Console) -> None:
    rows = [
        {"scheduledTime": ago(hours=1), "outcome": "Created", "taskName": "nightly.x", "phase": "Failed"},
        {
            "scheduledTime": ago(hours=2),
            "outcome": "Skipped",
            "taskName": None,
            "reason": "StillRunning",
            "message": "no",
        },
    ]
    run.rest.put("team/schedules/nightly/runs?limit=20", {"items": rows, "nextCursor": None})
    assert run("schedule", "runs", "nightly").out.splitlines() == [
        "TIME                      OUTCOME   TASK        PHASE    REASON",
        "2026-11-30 12:00:00 CET   Created   nightly.x   Failed",
        "2026-11-30 11:00:00 CET   Skipped                        StillRunning: no",
    ]
    run.rest.put("team/schedules/nightly/runs?outcome=Missed&limit=1", {"items": rows, "nextCursor": "more"})
    out = run("schedule", "runs", "nightly", "--outcome", "Missed", "--limit", "1", "-o", "jsonl").out
    assert [json.loads(line) for line in out.splitlines()] == rows[:1]
