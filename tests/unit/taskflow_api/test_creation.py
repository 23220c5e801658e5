"""Creation of Tasks, which an idempotency key makes repeatable."""

from __future__ import annotations

from typing import Any

import pytest

from taskflow_core.errors import Invalid, Unavailable
from tests.unit.taskflow_api.fakes import Api
from tests.unit.taskflow_api.rows import row

TASKS = "/v1/namespaces/team-a/tasks"
BODY = {"spec": {"handler": "a.b", "args": [1]}}
KEY = "order-7"


async def keyed(api: Api, body: Any = BODY, key: str = KEY) -> Any:
    return await api.call("POST", TASKS, body, idempotency_key=key)


async def test_a_repeated_request_gets_the_first_ones_task() -> None:
    api = Api()
    first, second = await keyed(api), await keyed(api)
    assert (first.status, second.status) == (201, 200)
    assert first.json["name"] == second.json["name"]
    assert first.json["name"].startswith("task-")
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(api.kube.objects) == 1


async def test_another_key_or_prefix_is_another_task() -> None:
    api = Api()
    answers = [await keyed(api), await keyed(api, key="order-8"), await keyed(api, BODY | {"generateName": "job-"})]
    assert [answer.status for answer in answers] == [201] * 3
    assert len({answer.json["name"] for answer in answers}) == 3


async def test_a_key_with_another_body_is_refused() -> None:
    api = Api()
    await keyed(api)
    refused = await keyed(api, {"spec": {"handler": "a.b", "args": [2]}})
    assert (refused.status, refused.json["code"]) == (422, "idempotency-key-reused")
    assert refused.json["errors"][0]["location"] == "header"


async def test_later_changes_do_not_make_it_another_body() -> None:
    api = Api()
    name = (await keyed(api)).json["name"]
    await api.call("PATCH", f"{TASKS}/{name}", {"spec": {"priority": 9}})
    assert (await keyed(api)).status == 200


async def test_long_after_the_task_was_deleted_it_is_not_run_again() -> None:
    api = Api()
    name = (await keyed(api)).json["name"]
    await api.call("DELETE", f"{TASKS}/{name}")
    api.history.rows = [row(name=name, spec={"handler": "a.b", "args": [1], "priority": 9, "notBefore": None})]
    again = await keyed(api)
    assert (again.status, again.json["live"], again.headers["idempotent-replayed"]) == (200, False, "true")
    assert api.kube.objects == {}
    other = await keyed(api, {"spec": {"handler": "a.c"}})
    assert (other.status, other.json["code"]) == (422, "idempotency-key-reused")


async def test_what_a_template_filled_in_makes_a_deleted_task_no_other_one() -> None:
    api = Api()
    body = {"spec": {"handler": "a.b", "kwargs": {"region": ["eu"]}}}
    name = (await keyed(api, body)).json["name"]
    await api.call("DELETE", f"{TASKS}/{name}")
    kwargs = {"region": ["eu"], "year": 2026}
    api.history.rows = [row(name=name, spec={"handler": "a.b", "kwargs": kwargs, "attemptTimeoutSeconds": 60})]
    assert (await keyed(api, body)).status == 200
    for other in ({"region": ["us"]}, {"region": ["eu"], "year": 2027}, {"region": ["eu"], "month": 1}):
        assert (await keyed(api, {"spec": {"handler": "a.b", "kwargs": other}})).status == 422


async def test_without_the_history_a_request_with_a_key_creates_nothing() -> None:
    api = Api()
    api.history.failure = Unavailable("down")
    assert (await keyed(api)).status == 503
    assert api.kube.objects == {}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY | {"name": "x"}, {"idempotency_key": KEY}),
        (BODY, {}),
        (BODY | {"name": "x", "generateName": "y-"}, {}),
        (BODY, {"idempotency_key": "with space"}),
        (BODY, {"idempotency_key": "x" * 256}),
    ],
)
async def test_exactly_one_source_of_the_name_is_required(body: Any, headers: dict[str, str]) -> None:
    api = Api()
    answer = await api.call("POST", TASKS, body, **headers)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert answer.json["errors"]
    assert api.kube.objects == {}


async def test_a_time_is_text_as_rfc_3339_says() -> None:
    api = Api()
    spec = {"handler": "a.b", "notBefore": "2030-01-01T00:00:00+01:00"}
    made = await api.call("POST", TASKS, {"name": "x", "spec": spec})
    assert made.status == 201
    for wrong in (1893456000, "1893456000", "2030-01-01", "2030-01-01T00:00:00"):
        answer = await api.call("POST", TASKS, {"name": "y", "spec": spec | {"notBefore": wrong}})
        assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/spec/notBefore"), wrong


async def test_a_dry_run_creates_nothing() -> None:
    api = Api()
    answer = await api.call("POST", TASKS + "?dryRun=true", BODY | {"name": "x"})
    assert answer.status == 201
    assert api.kube.objects == {}


def changed(phase: str, uid: str | None = None) -> dict[str, Any]:
    meta = {"name": "x", "namespace": "team-a", "resourceVersion": "9", "creationTimestamp": "2026-09-20T12:00:00Z"}
    meta["uid"] = uid or "0b0e7d8e-5c0f-4a54-9a3a-0d5b8f6f7a01"
    return {"type": "MODIFIED", "object": {"metadata": meta, "spec": BODY["spec"], "status": {"phase": phase}}}


@pytest.mark.parametrize(
    ("batches", "phase"),
    [
        ([[changed("Queued")], [changed("Running"), changed("Succeeded")]], "Succeeded"),
        ([[changed("Running")]], "Running"),
        ([[changed("Running")], Unavailable("cut")], "Running"),
        ([[changed("Succeeded", uid="another")]], "Pending"),
        ([], "Pending"),
    ],
    ids=["finished", "not in time", "watch cut", "another one", "silence"],
)
async def test_a_caller_may_wait_for_the_end(batches: Any, phase: str) -> None:
    api = Api()
    api.kube.batches = batches
    answer = await api.call("POST", TASKS, BODY | {"name": "x"}, prefer="wait=1")
    assert (answer.status, answer.json["phase"], answer.headers["preference-applied"]) == (201, phase, "wait=1")
    assert ("WATCH", "/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks", "metadata.name=x") in api.kube.calls


async def test_each_of_a_batch_has_its_own_result() -> None:
    api = Api()
    items: list[Any] = [
        {"name": "a", "spec": {"handler": "a.b", "notBefore": "2030-01-01T00:00:00Z"}},
        {"name": "a", "spec": {"handler": "a.b"}},
        {"name": "b", "spec": {"handler": "no such name"}},
        {"spec": {"handler": "a.b"}},
        {"name": "c", "spec": {"handler": "a.b", "args": ["x" * 9000]}},
    ]
    answer = await api.call("POST", TASKS + ":batch", {"items": items})
    assert answer.status == 200
    found = answer.json["items"]
    assert [item["status"] for item in found] == [201, 409, 422, 422, 413]
    assert (found[0]["name"], found[0]["problem"]) == ("a", None)
    assert found[2]["problem"]["errors"][0]["pointer"] == "/spec/handler"
    assert found[4]["problem"]["code"] == "payload-too-large"
    assert list(api.kube.objects) == ["/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/a"]


async def test_a_batch_may_be_repeated_with_its_key() -> None:
    api = Api()
    body = {"items": [{"spec": {"handler": "a.b", "args": [number]}} for number in range(3)]}
    first = await api.call("POST", TASKS + ":batch", body, idempotency_key=KEY)
    second = await api.call("POST", TASKS + ":batch", body, idempotency_key=KEY)
    assert [item["status"] for item in first.json["items"]] == [201] * 3
    assert [item["status"] for item in second.json["items"]] == [200] * 3
    assert first.json["items"][2]["name"] == second.json["items"][2]["name"]


@pytest.mark.parametrize("items", [[], [{}] * 1001, "x"])
async def test_a_batch_is_bounded(items: Any) -> None:
    assert (await Api().call("POST", TASKS + ":batch", {"items": items})).status == 422


async def test_errors_of_the_api_server_are_reported_for_each_item_of_a_batch() -> None:
    api = Api()
    api.kube.failure, api.kube.fail_on = Invalid("quota"), "/tasks"
    answer = await api.call("POST", TASKS + ":batch", {"items": [{"name": "a", "spec": {"handler": "a"}}]})
    assert (answer.status, answer.json["items"][0]["problem"]["detail"]) == (200, "quota")


async def test_a_batch_needs_the_right_to_create() -> None:
    body = {"items": [{"name": "a", "spec": {"handler": "a"}}]}
    assert (await Api().call("POST", TASKS + ":batch", body, token="bob-token")).status == 403
