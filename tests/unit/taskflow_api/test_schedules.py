from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskflow_core.errors import Cause, Conflict, Invalid, Unavailable
from taskflow_core.store.schedules import ListedRun, RunOutcome, RunRow
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.schedule_site import PATH, SCHEDULES, SPEC, body, stored

NOON = datetime(2026, 9, 20, 12, tzinfo=UTC)
JANUARY = {"name": "january", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}


def patches(api: Api) -> list[Any]:
    return [call[2] for call in api.kube.calls if call[0] == "PATCH"]


async def test_a_schedule_is_created_as_it_was_sent() -> None:
    api = Api()
    answer = await api.call("POST", SCHEDULES, {"name": "nightly", "labels": {"team": "a"}, "spec": SPEC})
    assert (answer.status, answer.headers["location"]) == (201, SCHEDULES + "/nightly")
    made = api.kube.objects[PATH + "/nightly"]
    # Nothing that the caller left out: the API server has the defaults.
    assert made["spec"] == SPEC
    assert (made["kind"], made["metadata"]["labels"]) == ("TaskSchedule", {"team": "a"})
    assert (answer.json["name"], answer.json["spec"], answer.json["nextScheduleTime"]) == ("nightly", SPEC, None)
    again = await api.call("POST", SCHEDULES, {"name": "nightly", "spec": SPEC})
    assert (again.status, again.json["code"]) == (409, "conflict")


async def test_a_dry_run_creates_nothing() -> None:
    api = Api()
    answer = await api.call("POST", SCHEDULES + "?dryRun=true", {"name": "nightly", "spec": SPEC})
    assert answer.status == 201
    assert api.kube.objects == {}


@pytest.mark.parametrize(
    ("spec", "pointer", "said"),
    [
        ({"every": {"seconds": 60}}, "/spec", "exactly one of schedules and every has to be set"),
        ({"schedules": None}, "/spec", "exactly one of schedules and every has to be set"),
        ({"schedules": []}, "/spec/schedules", "at least 1 item"),
        ({"schedules": ["30 2 * *"]}, "/spec/schedules/0", "match pattern"),
        ({"schedules": None, "every": {"seconds": 9}}, "/spec/every/seconds", "greater than or equal to 10"),
        ({"concurrencyPolicy": "Never"}, "/spec/concurrencyPolicy", "'Forbid', 'Allow', 'Replace' or 'Queue'"),
        ({"jitterSeconds": 3601}, "/spec/jitterSeconds", "less than or equal to 3600"),
        ({"backfills": [JANUARY | {"to": "2025-01-01T00:00:00Z"}]}, "/spec/backfills/0", "expected `to` after `from`"),
        ({"taskTemplate": {"spec": {}}}, "/spec/taskTemplate/spec/handler", "Field required"),
        (
            {"taskTemplate": {"spec": {"handler": "a", "cancel": True}}},
            "/spec/taskTemplate/spec/cancel",
            "not permitted",
        ),
        (
            {"taskTemplate": {"spec": {"handler": "a", "kwargs": {"n": 2**63}}}},
            "/spec/taskTemplate/spec/kwargs/n",
            "64",
        ),
        ({"cron": "* * * * *"}, "/spec/cron", "not permitted"),
    ],
)
async def test_bad_specifications_are_refused_where_they_are_bad(spec: dict[str, Any], pointer: str, said: str) -> None:
    api = Api()
    answer = await api.call("POST", SCHEDULES, {"name": "nightly", "spec": SPEC | spec})
    assert answer.status == 422
    (error,) = answer.json["errors"]
    assert error["pointer"] == pointer
    assert said in error["detail"]
    assert api.kube.objects == {}


async def test_a_payload_that_no_task_may_have_is_refused() -> None:
    template = {"spec": {"handler": "a", "kwargs": {"x": "y" * 9000}}}
    answer = await Api().call("POST", SCHEDULES, {"name": "nightly", "spec": SPEC | {"taskTemplate": template}})
    assert (answer.status, answer.json["code"]) == (413, "payload-too-large")


@pytest.mark.parametrize("name", ["with.dot", "n" * 53, "Upper", ""])
async def test_a_name_has_to_fit_into_those_of_the_tasks(name: str) -> None:
    answer = await Api().call("POST", SCHEDULES, {"name": name, "spec": SPEC})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/name")


async def test_what_the_api_server_refuses_is_told_where_it_is() -> None:
    api = Api()
    cause = Cause(field="spec.taskTemplate.metadata.labels", message="too long")
    api.kube.failure, api.kube.fail_on = Invalid("no", causes=(cause,)), "taskschedules"
    answer = await api.call("POST", SCHEDULES, {"name": "nightly", "spec": SPEC})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/spec/taskTemplate/metadata/labels")


async def test_a_schedule_is_shown_with_its_status() -> None:
    status = {
        "observedGeneration": 1,
        "lastScheduleTime": "2026-09-19T00:30:00Z",
        "lastTaskName": "nightly.20260919t003000z",
        "lastOutcome": "Succeeded",
        "nextScheduleTime": "2026-09-21T00:30:00Z",
        "nextScheduleTimes": ["2026-09-21T00:30:00Z"],
        "active": ["nightly.20260919t003000z"],
        "activeCount": 1,
        "skipped": 4,
        "missed": 2,
        "backfills": [{"name": "january", "created": 3, "failed": 1, "complete": True}],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Scheduled",
                "message": "next at 02:30",
                "lastTransitionTime": "2026-09-20T12:01:00Z",
            }
        ],
    }
    answer = await stored(status=status, suspend=True).call("GET", SCHEDULES + "/nightly")
    assert (answer.status, answer.headers["etag"]) == (200, '"7"')
    found = answer.json
    assert (found["lastTaskName"], found["lastOutcome"]) == ("nightly.20260919t003000z", "Succeeded")
    assert (found["skipped"], found["missed"], found["activeCount"]) == (4, 2, 1)
    assert (found["reason"], found["message"], found["suspended"]) == ("Scheduled", "next at 02:30", True)
    assert found["backfills"][0]["complete"] is True
    assert found["nextScheduleTimes"] == ["2026-09-21T00:30:00Z"]


async def test_a_schedule_that_nobody_can_read_is_shown_all_the_same() -> None:
    """`kubectl` with `--validate=false`, or a newer version, wrote it."""
    answer = await stored(every="hourly", status={"skipped": "many"}).call("GET", SCHEDULES + "/nightly")
    assert (answer.status, answer.json["spec"]["every"]) == (200, "hourly")


async def test_schedules_are_listed_by_label() -> None:
    api = Api()
    api.kube.objects[PATH] = {"items": [body("a"), body("b")], "metadata": {"continue": "next"}}
    answer = await api.call("GET", SCHEDULES + "?limit=2&labelSelector=team%3Da")
    assert ([item["name"] for item in answer.json["items"]], answer.json["nextCursor"]) == (["a", "b"], "next")
    refused = await api.call("GET", SCHEDULES + "?labelSelector=team%3D%3D%3Da")
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/labelSelector")
    for failure in (Conflict("410"), Invalid("400")):
        api.kube.failure, api.kube.fail_on = failure, "taskschedules"
        answer = await api.call("GET", SCHEDULES + "?cursor=old")
        assert (answer.status, answer.json["code"]) == (400, "bad-cursor")


async def test_a_change_is_a_merge_patch_of_what_was_sent() -> None:
    api = stored()
    change = {"schedules": ["0 4 * * *"], "jitterSeconds": None, "taskTemplate": {"spec": {"priority": 9}}}
    answer = await api.call("PATCH", SCHEDULES + "/nightly", {"spec": change}, If_Match='"7"')
    assert (answer.status, answer.headers["etag"]) == (200, '"8"')
    assert patches(api) == [{"spec": change, "metadata": {"resourceVersion": "7"}}]
    answer = await api.call("PATCH", SCHEDULES + "/nightly", {"spec": change}, If_Match='"7"')
    assert (answer.status, answer.json["code"]) == (412, "changed-since")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"jitterSeconds": -1},
        {"name": "x"},
        {"backfills": [{"name": "january"}]},
        {"taskTemplate": {"spec": {"kwargs": {"n": 2**63}}}},
        {"taskTemplate": {"spec": {"kwargs": {"half": "\ud800"}}}},
        {"taskTemplate": {"kind": "Job"}},
    ],
)
async def test_bad_changes_are_refused(spec: dict[str, Any]) -> None:
    api = stored()
    assert (await api.call("PATCH", SCHEDULES + "/nightly", {"spec": spec})).status == 422
    assert patches(api) == []


async def test_it_is_suspended_and_resumed() -> None:
    api = stored()
    answer = await api.call("POST", SCHEDULES + "/nightly:suspend")
    assert (answer.status, answer.json["suspended"]) == (200, True)
    answer = await api.call("POST", SCHEDULES + "/nightly:resume")
    assert (answer.status, answer.json["suspended"]) == (200, False)
    assert patches(api) == [{"spec": {"suspend": True}}, {"spec": {"suspend": False}}]


async def test_a_schedule_is_deleted() -> None:
    api = stored()
    assert (await api.call("DELETE", SCHEDULES + "/nightly")).status == 204
    answer = await api.call("DELETE", SCHEDULES + "/nightly")
    assert (answer.status, "no TaskSchedule nightly" in answer.json["detail"]) == (404, True)


async def test_a_backfill_is_added_once() -> None:
    former = {**JANUARY, "name": "december", "to": "2026-01-02T00:00:00Z"}
    api = stored(backfills=[former])
    for _ in range(2):
        answer = await api.call("POST", SCHEDULES + "/nightly:backfill", JANUARY | {"parallelism": 5})
        assert answer.status == 200
    added = JANUARY | {"parallelism": 5, "order": "OldestFirst"}
    assert patches(api) == [{"spec": {"backfills": [former, added]}, "metadata": {"resourceVersion": "7"}}]
    assert answer.json["spec"]["backfills"] == [former, added]
    answer = await api.call("POST", SCHEDULES + "/nightly:backfill", JANUARY)
    assert (answer.status, "another backfill january" in answer.json["detail"]) == (409, True)


async def test_a_backfill_is_added_again_to_a_schedule_that_changed_meanwhile() -> None:
    api, patched = stored(), 0
    original = api.kube._patch

    def changed_before(path: str, body: dict[str, Any]) -> dict[str, Any]:
        nonlocal patched
        patched += 1
        if patched == 1:
            raise Conflict("the object has been modified")
        return original(path, body)

    api.kube._patch = changed_before  # type: ignore[method-assign]
    assert (await api.call("POST", SCHEDULES + "/nightly:backfill", JANUARY)).status == 200
    assert patched == 2

    def changes_for_ever(path: str, body: dict[str, Any]) -> dict[str, Any]:
        raise Conflict("the object has been modified")

    api.kube._patch = changes_for_ever  # type: ignore[method-assign]
    answer = await api.call("POST", SCHEDULES + "/nightly:backfill", JANUARY | {"name": "other"})
    assert (answer.status, "try again" in answer.json["detail"]) == (409, True)


async def test_complete_backfills_make_room() -> None:
    eight = [JANUARY | {"name": f"b{number}"} for number in range(8)]
    api = stored(backfills=eight)
    answer = await api.call("POST", SCHEDULES + "/nightly:backfill", JANUARY)
    assert (answer.status, "8 backfills are not complete" in answer.json["detail"]) == (409, True)
    states = [{"name": f"b{number}", "complete": number in (0, 7)} for number in range(8)]
    api = stored(backfills=eight, status={"backfills": states})
    answer = await api.call("POST", SCHEDULES + "/nightly:backfill", JANUARY)
    assert [each["name"] for each in answer.json["spec"]["backfills"]] == [*(f"b{n}" for n in range(1, 7)), "january"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"to": "2026-01-01T00:00:00Z"}, ""),
        ({"from": "yesterday"}, "/from"),
        ({"parallelism": 101}, "/parallelism"),
        ({"name": "A"}, "/name"),
        ({"order": "Random"}, "/order"),
    ],
)
async def test_bad_backfills_are_refused(change: dict[str, Any], pointer: str) -> None:
    answer = await stored().call("POST", SCHEDULES + "/nightly:backfill", JANUARY | change)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer)


def listed(number: int, outcome: RunOutcome = RunOutcome.CREATED, **fields: Any) -> ListedRun:
    at = NOON + timedelta(minutes=number)
    made = outcome is RunOutcome.CREATED
    row = RunRow(
        schedule_uid="uid-nightly",
        namespace="team-a",
        schedule="nightly",
        tick=at,
        outcome=outcome,
        reason="" if made else "StillRunning",
        task_name=f"nightly.{number}" if made else None,
        task_uid=f"u{number}" if made else None,
        decided_at=at,
        **fields,
    )
    return ListedRun(run=row, phase="Succeeded" if made else None, started_at=None, finished_at=None)


async def test_runs_are_listed_page_by_page() -> None:
    api = stored()
    api.history.runs = [*(listed(number) for number in range(5)), listed(2, token="0123456789abcdef")]
    seen, url = [], SCHEDULES + "/nightly/runs?limit=2"
    while url:
        answer = await api.call("GET", url)
        seen += [(item["scheduledTime"], item["manual"]) for item in answer.json["items"]]
        link = answer.headers.get("link", "")
        assert bool(link) == (answer.json["nextCursor"] is not None)
        url = link.partition(">")[0].removeprefix("<")
    assert len(seen) == len(set(seen)) == 6
    assert seen == sorted(seen, reverse=True)


async def test_runs_are_filtered_and_say_why_a_tick_did_not_run() -> None:
    api = stored()
    api.history.runs = [listed(1), listed(2, RunOutcome.SKIPPED), listed(3, backfill="january")]
    (item,) = (await api.call("GET", SCHEDULES + "/nightly/runs?outcome=Skipped")).json["items"]
    assert (item["outcome"], item["reason"], item["taskName"], item["phase"]) == ("Skipped", "StillRunning", None, None)
    (item,) = (await api.call("GET", SCHEDULES + "/nightly/runs?backfill=january")).json["items"]
    assert (item["backfill"], item["taskName"], item["phase"]) == ("january", "nightly.3", "Succeeded")
    assert (await api.call("GET", SCHEDULES + "/nightly/runs?outcome=created")).status == 422


async def test_a_cursor_belongs_to_its_list() -> None:
    api = stored()
    api.history.runs = [listed(number) for number in range(3)]
    cursor = (await api.call("GET", SCHEDULES + "/nightly/runs?limit=1")).json["nextCursor"]
    api.history.schedules.add(("team-a", "other"))
    for url in (
        f"/other/runs?cursor={cursor}",
        f"/nightly/runs?outcome=Created&cursor={cursor}",
        "/nightly/runs?cursor=x",
    ):
        answer = await api.call("GET", SCHEDULES + url)
        assert (answer.status, answer.json["code"]) == (400, "bad-cursor"), url


async def test_runs_of_a_deleted_schedule_are_kept_and_of_an_unknown_one_there_are_none() -> None:
    api = stored()
    assert (await api.call("GET", SCHEDULES + "/nightly/runs")).json["items"] == []
    api.history.schedules.add(("team-a", "former"))
    assert (await api.call("GET", SCHEDULES + "/former/runs")).status == 200
    assert (await api.call("GET", SCHEDULES + "/never/runs")).status == 404
    api.history.failure = Unavailable("no")
    assert (await api.call("GET", SCHEDULES + "/nightly/runs")).status == 503


async def test_rights_are_those_on_taskschedules() -> None:
    api = stored()
    wanted: tuple[tuple[str, str, Any, str], ...] = (
        ("GET", "", None, "list"),
        ("POST", "", {"name": "a", "spec": SPEC}, "create"),
        ("GET", "/nightly", None, "get"),
        ("PATCH", "/nightly", {"spec": {"suspend": True}}, "patch"),
        ("DELETE", "/nightly", None, "delete"),
        ("POST", "/nightly:suspend", None, "patch"),
        ("POST", "/nightly:resume", None, "patch"),
        ("POST", "/nightly:backfill", JANUARY, "patch"),
        ("GET", "/nightly/runs", None, "get"),
    )
    for method, url, sent, verb in wanted:
        answer = await api.call(method, SCHEDULES + url, sent, token="bob-token")
        assert (answer.status, "taskschedules.taskflow.dev" in answer.json["detail"]) == (403, True), url
        review = next(call[2] for call in reversed(api.kube.calls) if call[1].endswith("subjectaccessreviews"))
        asked = review["spec"]["resourceAttributes"]
        assert (asked["resource"], asked["verb"]) == ("taskschedules", verb), url
    assert PATH + "/nightly" in api.kube.objects
