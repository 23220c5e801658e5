"""Changes of a Task, and retries of a finished one."""

from __future__ import annotations

from typing import Any

import pytest

from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.domain.phases import Reason
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.rows import row

TASKS = "/v1/namespaces/team-a/tasks"
SPEC = {"handler": "a.b", "args": [1], "queueTimeoutSeconds": 60}
PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/x"


async def with_one(**headers: str) -> Api:
    api = Api()
    assert (await api.call("POST", TASKS, {"name": "x", "labels": {"a": "b"}, "spec": SPEC}, **headers)).status == 201
    return api


async def test_only_what_is_named_changes_and_null_removes() -> None:
    api = await with_one()
    answer = await api.call("PATCH", TASKS + "/x", {"spec": {"priority": 5, "queueTimeoutSeconds": None}})
    assert answer.status == 200
    assert api.kube.calls[-1][2] == {"spec": {"priority": 5, "queueTimeoutSeconds": None}}
    assert answer.json["spec"] == {"handler": "a.b", "args": [1], "priority": 5}
    assert answer.headers["etag"] == '"8"'


@pytest.mark.parametrize("tag", ['"7"', '"7.3"', 'W/"7"', "*"])
async def test_a_change_with_the_current_etag_succeeds(tag: str) -> None:
    api = await with_one()
    assert (await api.call("PATCH", TASKS + "/x", {"spec": {"suspend": True}}, if_match=tag)).status == 200


async def test_a_change_with_an_outdated_etag_is_refused() -> None:
    api = await with_one()
    answer = await api.call("PATCH", TASKS + "/x", {"spec": {"suspend": True}}, if_match='"6"')
    assert (answer.status, answer.json["code"]) == (412, "changed-since")
    assert "suspend" not in api.kube.objects[PATH]["spec"]


@pytest.mark.parametrize("tag", ["null", '""', '"x"', "-1"])
async def test_a_foreign_etag_matches_nothing(tag: str) -> None:
    api = await with_one()
    answer = await api.call("PATCH", TASKS + "/x", {"spec": {"suspend": True}}, if_match=tag)
    assert (answer.status, answer.json["code"]) == (412, "changed-since")
    assert api.kube.calls[-1][0] != "PATCH"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/x", "DELETE, GET, HEAD, PATCH"),
        ("PATCH", "/x:cancel", "POST"),
        ("DELETE", "", "GET, HEAD, POST"),
        ("GET", ":batch", "POST"),
    ],
)
async def test_an_unknown_method_is_answered_with_the_allowed_ones(method: str, path: str, allowed: str) -> None:
    answer = await Api().call(method, TASKS + path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "body",
    [{}, {"spec": {"handler": "c"}}, {"spec": {"priority": 10}}, {"spec": {"priority": "5"}}, {"labels": {}}],
)
async def test_changes_of_immutable_fields_are_refused(body: Any) -> None:
    api = await with_one()
    assert (await api.call("PATCH", TASKS + "/x", body)).status == 422
    assert api.kube.calls[-1][0] != "PATCH"


async def test_cancel_is_a_separate_action() -> None:
    api = await with_one()
    answer = await api.call("POST", TASKS + "/x:cancel")
    assert (answer.status, answer.json["spec"]["cancel"]) == (200, True)
    assert (await api.call("POST", TASKS + "/y:cancel")).status == 404


async def test_a_retry_creates_a_task_linked_to_the_finished_one() -> None:
    api = await with_one()
    refused = await api.call("POST", TASKS + "/x:retry")
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    api.kube.objects[PATH] |= {"status": {"phase": "Cancelled"}, "spec": SPEC | {"cancel": True, "suspend": False}}
    answer = await api.call("POST", TASKS + "/x:retry")
    assert (answer.status, answer.json["name"]) == (201, "x-abcde")
    sent = api.kube.calls[-1][2]
    assert sent["spec"] == SPEC
    assert sent["metadata"]["annotations"] == {"taskflow.dev/retried-from": "0b0e7d8e-5c0f-4a54-9a3a-0d5b8f6f7a01"}
    assert sent["metadata"]["labels"] == {"a": "b"}


async def test_a_deleted_task_can_be_retried_from_the_history() -> None:
    api = Api()
    api.history.rows = [row(name="old", phase="Failed", spec={"handler": "a.b", "args": [], "notBefore": None})]
    assert (await api.call("POST", TASKS + "/old:retry")).status == 201
    assert api.kube.calls[-1][2]["spec"] == {"handler": "a.b", "args": []}


async def test_what_the_history_says_of_a_deleted_task_is_checked_like_a_callers_body() -> None:
    api = Api()
    api.history.rows = [
        row(name="old", phase="Failed", spec={"handler": "a.b", "inputs": [{"name": "x", "key": "../y"}]})
    ]
    answer = await api.call("POST", TASKS + "/old:retry")
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert not [path for method, path, _ in api.kube.calls if method == "POST" and path.endswith("/tasks")]


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/x"), ("POST", "/x:cancel"), ("POST", "/x:retry")])
async def test_each_needs_its_right(method: str, path: str) -> None:
    api = await with_one()
    body = {"spec": {"priority": 1}} if method == "PATCH" else None
    assert (await api.call(method, TASKS + path, body, token="bob-token")).status == 403


async def test_a_matching_etag_is_answered_with_304() -> None:
    api = await with_one()
    tag = (await api.call("GET", TASKS + "/x")).headers["etag"]
    again = await api.call("GET", TASKS + "/x", if_none_match=tag)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert (await api.call("GET", TASKS + "/x", if_none_match='"6.1"')).status == 200


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("failed", {"failedOf": "0b0e7d8e-5c0f-4a54-9a3a-0d5b8f6f7a01"}), ("3,7-8", {"indexes": "3,7-8"})],
)
async def test_a_retry_of_an_array_can_select_failed_or_named_items(query: str, wanted: dict[str, str]) -> None:
    api = await with_one()
    spec = {"handler": "a.b", "array": {"count": 9, "indexes": "1-8", "maxFailures": 2}}
    api.kube.objects[PATH] |= {"status": {"phase": "Failed"}, "spec": spec}
    assert (await api.call("POST", f"{TASKS}/x:retry?items={query}")).status == 201
    assert api.kube.calls[-1][2]["spec"]["array"] == {"count": 9, "maxFailures": 2, **wanted}


@pytest.mark.parametrize(("items", "status"), [("failed", 422), ("1-", 422), ("all", 422)])
async def test_what_has_no_such_items_is_refused(items: str, status: int) -> None:
    api = await with_one()
    api.kube.objects[PATH] |= {"status": {"phase": "Failed"}, "spec": SPEC}
    assert (await api.call("POST", f"{TASKS}/x:retry?items={items}")).status == status


async def test_the_items_of_an_array_come_page_by_page() -> None:
    api = await with_one()
    api.history.items = [
        ItemRow(0, 6, ItemState.SUCCEEDED, 1),
        ItemRow(7, 7, ItemState.FAILED, 3, reason=Reason.HANDLER_ERROR, error_type="ValueError", message="no"),
        ItemRow(8, 8, ItemState.SUCCEEDED, 1, result={"a": 1}),
    ]
    first = (await api.call("GET", f"{TASKS}/x/items?limit=2")).json
    assert [(row["first"], row["last"], row["state"]) for row in first["items"]] == [
        (0, 6, "succeeded"),
        (7, 7, "failed"),
    ]
    second = (await api.call("GET", f"{TASKS}/x/items?limit=2&after={first['next']}")).json
    assert (second["items"][0]["result"], second["next"]) == ({"a": 1}, None)
    failed = (await api.call("GET", f"{TASKS}/x/items?state=failed")).json["items"]
    assert [(row["errorType"], row["message"], row["attempts"]) for row in failed] == [("ValueError", "no", 3)]
