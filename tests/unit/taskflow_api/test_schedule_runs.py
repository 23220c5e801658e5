from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from taskflow_api.http.services import Services
from taskflow_core.errors import Invalid, Unavailable
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.rows import row
from tests.unit.taskflow_api.schedule_site import PATH, SCHEDULES, stored

RUN = SCHEDULES + "/nightly:run"
TASKS = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks"
TOKEN = "taskflow.dev/run-now"


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Services, "now", lambda _: datetime(2026, 9, 20, 12, 0, 0, 500_000, tzinfo=UTC))


def made(api: Api) -> list[dict[str, Any]]:
    return [call[2] for call in api.kube.calls if call[:2] == ("POST", TASKS)]


def earlier(api: Api, name: str, phase: str | None = "Running", owner: str = "uid-nightly") -> None:
    """An earlier run of the schedule."""
    meta = {
        "name": name,
        "namespace": "team-a",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-09-20T11:00:00Z",
        "labels": {"taskflow.dev/schedule": "nightly"},
        "ownerReferences": [{"kind": "TaskSchedule", "name": "nightly", "uid": owner, "controller": True}],
    }
    body = {"metadata": meta, "spec": {"handler": "reports.nightly"}} | ({"status": {"phase": phase}} if phase else {})
    api.kube.objects[f"{TASKS}/{name}"] = body


async def test_a_run_is_a_task_of_the_schedule() -> None:
    template = {"metadata": {"labels": {"team": "a"}}, "spec": {"handler": "reports.nightly", "queue": "reports"}}
    api = stored(taskTemplate=template, suspend=True)
    answer = await api.call("POST", RUN)
    assert answer.status == 201
    (manifest,) = made(api)
    name = manifest["metadata"]["name"]
    assert name.startswith("nightly.run-")
    assert (answer.json["taskName"], answer.json["task"]["name"]) == (name, name)
    assert answer.headers["location"] == f"/v1/namespaces/team-a/tasks/{name}"
    assert manifest["spec"] == template["spec"]
    assert manifest["metadata"]["labels"]["taskflow.dev/schedule"] == "nightly"
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-nightly"
    assert manifest["metadata"]["annotations"][TOKEN]
    (recorded,) = api.history.runs
    assert (recorded.run.task_name, recorded.run.schedule_uid, bool(recorded.run.token)) == (name, "uid-nightly", True)


async def test_each_request_without_a_key_is_a_run() -> None:
    api = stored(concurrencyPolicy="Allow")
    names = {(await api.call("POST", RUN)).json["taskName"] for _ in range(3)}
    assert len(names) == len(made(api)) == 3


async def test_a_run_gets_the_times_that_the_schedule_passes() -> None:
    api = stored(**{"pass": {"scheduledTime": "at", "previousTime": "since", "nextTime": "until"}})
    assert (await api.call("POST", RUN)).status == 201
    assert made(api)[0]["spec"]["kwargs"] == {
        "at": "2026-09-20T12:00:00Z",
        "since": "2026-09-20T00:30:00Z",
        "until": "2026-09-21T00:30:00Z",
    }


async def test_a_repeated_request_is_the_same_run() -> None:
    api = stored()
    first = await api.call("POST", RUN, idempotency_key="k")
    again = await api.call("POST", RUN, idempotency_key="k")
    assert (first.status, again.status, again.headers["idempotent-replayed"]) == (201, 200, "true")
    assert first.json["taskName"] == again.json["taskName"]
    assert again.json["task"]["uid"] == first.json["task"]["uid"]
    other = await api.call("POST", RUN, idempotency_key="k2")
    # It is another one, so the policy holds: the first is not finished.
    assert (other.status, len(made(api))) == (409, 1)


async def test_a_late_repetition_runs_nothing_again() -> None:
    api = stored()
    name = (await api.call("POST", RUN, idempotency_key="k")).json["taskName"]
    del api.kube.objects[f"{TASKS}/{name}"]
    api.history.rows = [row(name=name)]
    again = await api.call("POST", RUN, idempotency_key="k")
    assert (again.status, again.json["task"]["live"], len(made(api))) == (200, False, 1)


async def test_two_requests_with_one_key_at_once_are_one_run() -> None:
    """The second one lists before the first one has created; here the list leaves the Task out for want of an owner."""
    api = stored()
    name = (await api.call("POST", RUN, idempotency_key="k")).json["taskName"]
    task = api.kube.objects[f"{TASKS}/{name}"]
    task["metadata"] = task["metadata"] | {"ownerReferences": []}
    again = await api.call("POST", RUN, idempotency_key="k")
    assert (again.status, again.json["taskName"]) == (200, name)
    task["metadata"] = task["metadata"] | {"annotations": {}}
    taken = await api.call("POST", RUN, idempotency_key="k")
    assert (taken.status, taken.json["code"]) == (409, "conflict")


async def test_forbid_refuses_while_an_earlier_run_is_not_finished() -> None:
    api = stored()
    api.kube.most = 1
    earlier(api, "nightly.done", "Succeeded")
    earlier(api, "nightly.former", "Running", owner="uid-of-a-former-one")
    earlier(api, "nightly.filled")
    api.kube.objects[f"{TASKS}/nightly.filled"]["metadata"]["annotations"] = {"taskflow.dev/backfill": "january"}
    for number in range(5):
        earlier(api, f"nightly.{number}", None if number else "Queued")
    answer = await api.call("POST", RUN)
    assert (answer.status, answer.json["code"]) == (409, "still-running")
    assert answer.json["detail"].endswith("not finished: nightly.0, nightly.1, nightly.2 and 2 more")
    assert made(api) == []
    for number in range(5):
        earlier(api, f"nightly.{number}", "Failed")
    assert (await api.call("POST", RUN)).status == 201


async def test_allow_runs_beside_the_others() -> None:
    api = stored(concurrencyPolicy="Allow")
    earlier(api, "nightly.0")
    assert (await api.call("POST", RUN)).status == 201


@pytest.mark.parametrize("policy", ["Replace", "Queue"])
async def test_what_has_to_wait_is_left_to_the_operator(policy: str) -> None:
    api = stored(concurrencyPolicy=policy)
    earlier(api, "nightly.0")
    answer = await api.call("POST", RUN, idempotency_key="k")
    again = await api.call("POST", RUN, idempotency_key="k")
    assert (answer.status, answer.json["task"], again.json) == (202, None, answer.json)
    assert made(api) == []
    token = api.kube.objects[PATH + "/nightly"]["metadata"]["annotations"][TOKEN]
    earlier(api, "nightly.0", "Succeeded")
    # Nothing waits any more: the Task has the name that was told, whoever creates it.
    created = await api.call("POST", RUN, idempotency_key="k")
    assert (created.status, created.json["taskName"]) == (201, answer.json["taskName"])
    assert made(api)[0]["metadata"]["annotations"][TOKEN] == token


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"schedules": ["0 0 31 2 *"]}, "0 0 31 2 *"),
        ({"timeZone": "Nowhere/Land"}, "Nowhere/Land"),
        ({"every": "hourly"}, "cannot be read"),
    ],
)
async def test_a_schedule_that_is_stalled_runs_nothing(spec: dict[str, Any], said: str) -> None:
    api = stored(**spec)
    answer = await api.call("POST", RUN)
    assert (answer.status, said in answer.json["detail"]) == (409, True)
    assert made(api) == []


async def test_a_schedule_that_is_being_deleted_runs_nothing() -> None:
    api = stored()
    api.kube.objects[PATH + "/nightly"]["metadata"]["deletionTimestamp"] = "2026-09-20T12:00:00Z"
    assert (await api.call("POST", RUN)).status == 409
    assert (await api.call("POST", SCHEDULES + "/never:run")).status == 404


async def test_what_the_api_server_refuses_is_told() -> None:
    api = stored()
    api.kube.failure, api.kube.fail_on = Invalid("exceeded quota: tasks"), "/tasks"
    answer = await api.call("POST", RUN)
    assert (answer.status, "exceeded quota" in answer.json["detail"]) == (422, True)


async def test_without_the_history_a_run_is_created_but_not_with_a_key() -> None:
    api = stored(concurrencyPolicy="Allow")
    api.history.failure = Unavailable("no")
    with structlog.testing.capture_logs() as logs:
        assert (await api.call("POST", RUN)).status == 201
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["schedule_run_not_recorded"]
    assert (await api.call("POST", RUN, idempotency_key="k")).status == 503
    assert len(made(api)) == 1


async def test_rights_on_tasks_are_needed_and_to_wait_also_on_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    api = stored(concurrencyPolicy="Queue")
    refused: set[tuple[str, str]] = set()

    original = api.auth.allows

    async def asked(caller: Any, verb: str, *place: str, resource: Any) -> bool:
        return (verb, resource.plural) not in refused and await original(caller, verb, *place, resource=resource)

    monkeypatch.setattr(api.auth, "allows", asked)
    for right in (("get", "taskschedules"), ("create", "tasks")):
        refused = {right}
        answer = await api.call("POST", RUN)
        assert (answer.status, f"{right[0]} {right[1]}.taskflow.dev" in answer.json["detail"]) == (403, True)
    refused = {("patch", "taskschedules")}
    assert (await api.call("POST", RUN)).status == 201
    answer = await api.call("POST", RUN)
    assert (answer.status, "patch taskschedules.taskflow.dev" in answer.json["detail"]) == (403, True)
