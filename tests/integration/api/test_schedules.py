"""TaskSchedules over REST, on a real API server and a real history. No operator runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskflow_core.kube.client import KubeClient, resource_path, tasks_path
from taskflow_core.store.schedules import RunOutcome, RunRow
from tests.integration.api.conftest import Answer, Installation

pytestmark = pytest.mark.integration
NAMESPACE, ACCOUNT, READER = "scheduled", "scheduler", "looking-on"
SCHEDULES = f"/v1/namespaces/{NAMESPACE}/schedules"
EVERYTHING = ("create", "get", "list", "watch", "patch", "delete")
NOON = datetime(2026, 9, 20, 12, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "schedules": ["30 2 * * *"],
    "timeZone": "Europe/Berlin",
    "taskTemplate": {"spec": {"handler": "reports.nightly", "kwargs": {"a": 1, "b": 2}}},
}


@pytest.fixture(scope="module")
def site(installation: Installation) -> Installation:
    installation.stack.add_namespace(NAMESPACE)
    installation.add_account(ACCOUNT, ["create", "get", "list"], (), EVERYTHING, namespace=NAMESPACE)
    installation.add_account(READER, [], (), ("get", "list"), namespace=NAMESPACE)
    return installation


def call(
    site: Installation, method: str, path: str, body: Any = None, account: str = ACCOUNT, **headers: str
) -> Answer:
    return site.call(method, SCHEDULES + path, body, account=account, **headers)


def create(site: Installation, name: str, **spec: Any) -> dict[str, Any]:
    answer = call(site, "POST", "", {"name": name, "spec": SPEC | spec})
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_a_schedule_gets_the_defaults_of_the_api_server(site: Installation) -> None:
    dry = call(site, "POST", "?dryRun=true", {"name": "defaults", "spec": SPEC})
    assert dry.status == 201
    assert call(site, "GET", "/defaults").status == 404
    made = create(site, "defaults")
    assert made["spec"]["concurrencyPolicy"] == "Forbid"
    assert made["spec"]["catchUp"] == {"policy": "Last", "limit": 100}
    found = call(site, "GET", "/defaults")
    assert (found.status, found.json) == (200, made)
    listed = call(site, "GET", "?limit=500").json
    assert made in listed["items"]


@pytest.mark.parametrize(
    ("spec", "pointer", "said"),
    [
        ({"timeZone": "Local"}, "/spec/timeZone", "name a zone, e.g. Europe/Berlin"),
        ({"startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z"}, "/spec/endTime", "after startTime"),
        (
            {"startingDeadlineSeconds": 5, "jitterSeconds": 5},
            "/spec/startingDeadlineSeconds",
            "more than jitterSeconds",
        ),
        ({"pass": {"scheduledTime": "at", "nextTime": "at"}}, "/spec/pass", "need different names"),
    ],
)
def test_what_only_the_api_server_sees_is_told_where_it_is(
    site: Installation, spec: dict[str, Any], pointer: str, said: str
) -> None:
    answer = call(site, "POST", "", {"name": "wrong", "spec": SPEC | spec})
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    (error,) = answer.json["errors"]
    assert (error["pointer"], said in error["detail"]) == (pointer, True), error


def test_a_change_merges_and_null_sets_the_default(site: Installation) -> None:
    made = create(site, "changed", concurrencyPolicy="Allow")
    template = {"spec": {"priority": 5, "kwargs": {"b": None, "c": 3}}}
    change = {"schedules": None, "every": {"seconds": 60}, "concurrencyPolicy": None, "taskTemplate": template}
    etag = call(site, "GET", "/changed").headers["ETag"]
    answer = call(site, "PATCH", "/changed", {"spec": change}, If_Match=etag)
    assert answer.status == 200, answer.body
    spec = answer.json["spec"]
    assert (spec["every"], "schedules" in spec, spec["concurrencyPolicy"]) == ({"seconds": 60}, False, "Forbid")
    assert (spec["taskTemplate"]["spec"]["kwargs"], spec["taskTemplate"]["spec"]["priority"]) == ({"a": 1, "c": 3}, 5)
    assert (answer.json["uid"], answer.json["generation"]) == (made["uid"], 2)
    assert call(site, "PATCH", "/changed", {"spec": change}, If_Match=etag).status == 412
    both = call(site, "PATCH", "/changed", {"spec": {"schedules": ["@daily"]}})
    assert (both.status, "exactly one of schedules and every" in both.json["detail"]) == (422, True)
    unknown = call(site, "PATCH", "/changed", {"spec": {"taskTemplate": {"spec": {"prio": 1}}}})
    assert unknown.status in (400, 422), unknown.body
    assert "prio" in unknown.json["detail"]
    assert call(site, "POST", "/changed:suspend").json["suspended"] is True
    assert call(site, "POST", "/changed:resume").json["suspended"] is False


def test_backfills_that_are_added_at_once_are_all_added(site: Installation) -> None:
    create(site, "filled")

    def add(number: int) -> Answer:
        day = NOON + timedelta(days=number)
        body = {"name": f"b{number}", "from": day.isoformat(), "to": (day + timedelta(days=1)).isoformat()}
        return call(site, "POST", "/filled:backfill", body)

    with ThreadPoolExecutor(3) as pool:
        assert [answer.status for answer in pool.map(add, (0, 1, 2, 0))] == [200] * 4
    found = call(site, "GET", "/filled").json["spec"]["backfills"]
    assert {each["name"] for each in found} == {"b0", "b1", "b2"}
    for number in range(3, 8):
        assert add(number).status == 200
    assert add(8).status == 409


def test_a_run_is_a_task_that_is_created_once(site: Installation) -> None:
    made = create(site, "manual", **{"pass": {"scheduledTime": "at", "previousTime": "since"}})
    first = call(site, "POST", "/manual:run", Idempotency_Key="k")
    assert first.status == 201, first.body
    name = first.json["taskName"]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: call(site, "POST", "/manual:run", Idempotency_Key="k"), range(4)))
    assert [(answer.status, answer.json["task"]["uid"]) for answer in again] == [(200, first.json["task"]["uid"])] * 4
    busy = call(site, "POST", "/manual:run")
    assert (busy.status, busy.json["code"], name in busy.json["detail"]) == (409, "still-running", True)

    async def read(client: KubeClient) -> dict[str, Any]:
        return await client.request("GET", tasks_path(NAMESPACE, name))

    task = site.kube(read)
    assert task["metadata"]["labels"]["taskflow.dev/schedule"] == "manual"
    (owner,) = task["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("TaskSchedule", made["uid"])
    assert set(task["spec"]["kwargs"]) == {"a", "b", "at", "since"}
    (run,) = call(site, "GET", "/manual/runs").json["items"]
    assert (run["taskName"], run["manual"], run["outcome"]) == (name, True, "Created")


def test_many_requests_with_one_key_at_once_are_one_task(site: Installation) -> None:
    create(site, "raced", concurrencyPolicy="Allow")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(site, "POST", "/raced:run", Idempotency_Key="race"), range(8)))
    assert {answer.status for answer in answers} <= {200, 201}
    assert [answer.status for answer in answers].count(201) == 1
    assert len({answer.json["task"]["uid"] for answer in answers}) == 1


def test_what_has_to_wait_is_noted_for_the_operator(site: Installation) -> None:
    create(site, "queued", concurrencyPolicy="Queue")
    assert call(site, "POST", "/queued:run").status == 201
    waiting = call(site, "POST", "/queued:run", Idempotency_Key="second")
    assert (waiting.status, waiting.json["task"]) == (202, None)

    async def read(client: KubeClient) -> dict[str, Any]:
        path = resource_path("apis/taskflow.dev/v1alpha1", "taskschedules", NAMESPACE, "queued")
        return await client.request("GET", path)

    assert site.kube(read)["metadata"]["annotations"]["taskflow.dev/run-now"]


def test_runs_are_pages_of_the_history(site: Installation) -> None:
    made = create(site, "past")
    for number in range(5):
        created = number != 2
        site.record_run(
            RunRow(
                schedule_uid=made["uid"],
                namespace=NAMESPACE,
                schedule="past",
                tick=NOON + timedelta(minutes=number),
                outcome=RunOutcome.CREATED if created else RunOutcome.SKIPPED,
                reason="" if created else "StillRunning",
                task_uid=f"u{number}" if created else None,
                task_name=f"past.{number}" if created else None,
                decided_at=NOON,
            )
        )
    seen, path = [], "/past/runs?limit=2"
    while path:
        answer = call(site, "GET", path, account=READER)
        seen += [run["taskName"] or run["reason"] for run in answer.json["items"]]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<").removeprefix(SCHEDULES)
    assert seen == ["past.4", "past.3", "StillRunning", "past.1", "past.0"]
    assert call(site, "DELETE", "/past").status == 204
    assert len(call(site, "GET", "/past/runs?outcome=Created").json["items"]) == 4
    assert call(site, "GET", "/never/runs").status == 404


def test_ticks_are_told_before_and_after_it_is_created(site: Installation) -> None:
    timing = {"schedules": ["H 2 * * *"], "timeZone": "Europe/Berlin"}
    preview = call(site, "POST", ":next?count=3", {"name": "ahead", "spec": timing})
    assert preview.status == 200, preview.body
    create(site, "ahead", **timing)
    assert call(site, "GET", "/ahead/next?count=3", account=READER).json == preview.json
    assert len(preview.json["items"]) == 3


def test_who_may_read_changes_nothing(site: Installation) -> None:
    create(site, "guarded")
    requests: tuple[tuple[str, str, Any], ...] = (
        ("POST", "", {"name": "other", "spec": SPEC}),
        ("PATCH", "/guarded", {"spec": {"suspend": True}}),
        ("POST", "/guarded:run", None),
        ("POST", "/guarded:suspend", None),
        ("POST", "/guarded:backfill", {"name": "b", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}),
        ("DELETE", "/guarded", None),
    )
    for method, path, body in requests:
        assert call(site, method, path, body, account=READER).status == 403, path
    assert call(site, "GET", "/guarded", account=READER).status == 200
    assert call(site, "GET", "", account=READER).status == 200
