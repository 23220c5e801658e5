"""Endpoints and deliveries through a real API process; a notifier has tests of its own."""

import base64
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.api.conftest import NAMESPACE, Installation

pytestmark = pytest.mark.integration
HOOKS = f"/v1/namespaces/{NAMESPACE}/webhooks"
URL = "https://hooks.example.com/taskflow?token=x"


@pytest.fixture(scope="module")
def hooks(installation: Installation) -> Installation:
    rule = {"apiGroups": ["taskflow.dev"], "resources": ["webhooks"], "verbs": ["*"]}
    subject = {"kind": "ServiceAccount", "name": "allowed", "namespace": NAMESPACE}
    installation.grant("hooks", subject, rule)
    return installation


def made(hooks: Installation, name: str, **more: Any) -> dict[str, Any]:
    found = hooks.call("POST", HOOKS, {"name": name, "url": URL, **more})
    assert found.status == 201, found.body
    assert found.headers["Location"] == f"{HOOKS}/{name}"
    return dict(found.json)


def test_the_secret_is_shown_only_once(hooks: Installation) -> None:
    new = made(hooks, "billing", types=["task.failed", "task.failed"], tasks="Named")
    assert len(base64.b64decode(new.pop("secret").removeprefix("whsec_"))) == 32
    assert new | {"createdAt": ""} == {
        "name": "billing",
        "namespace": NAMESPACE,
        "url": URL,
        "types": ["task.failed"],
        "tasks": "Named",
        "enabled": True,
        "disabledReason": "",
        "disabledAt": None,
        "createdAt": "",
        "oldSecretUntil": None,
        "createdBy": f"system:serviceaccount:{NAMESPACE}:allowed",
    }
    assert hooks.call("GET", f"{HOOKS}/billing").json == new
    assert new in hooks.call("GET", HOOKS).json["items"]
    again = hooks.call("POST", HOOKS, {"name": "billing", "url": URL})
    assert (again.status, again.json["code"]) == (409, "conflict")
    assert hooks.call("DELETE", f"{HOOKS}/billing").status == 204
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("PATCH", ""),
        ("POST", ":test"),
        ("POST", ":rotate"),
        ("GET", "/deliveries"),
    ):
        body = {"enabled": True} if method == "PATCH" else None
        assert hooks.call(method, f"{HOOKS}/billing{path}", body).status == 404


def test_a_secret_is_rotated_with_and_without_grace(hooks: Installation) -> None:
    first = made(hooks, "rotated")
    second = hooks.call("POST", f"{HOOKS}/rotated:rotate").json
    assert second["secret"] != first["secret"]
    assert second["oldSecretUntil"] is not None
    third = hooks.call("POST", f"{HOOKS}/rotated:rotate", {"graceSeconds": 0}).json
    assert (third["secret"] != second["secret"], third["oldSecretUntil"]) == (True, None)


def test_an_endpoint_is_changed_disabled_and_enabled(hooks: Installation) -> None:
    made(hooks, "changed")
    changed = hooks.call(
        "PATCH", f"{HOOKS}/changed", {"url": "https://other.example.com/", "types": ["task.cancelled"]}
    ).json
    assert (changed["url"], changed["types"], changed["tasks"]) == (
        "https://other.example.com/",
        ["task.cancelled"],
        "All",
    )
    waiting = hooks.call("POST", f"{HOOKS}/changed:test").json
    off = hooks.call("PATCH", f"{HOOKS}/changed", {"enabled": False}).json
    assert (off["enabled"], off["disabledReason"]) == (False, "Disabled")
    one = f"{HOOKS}/changed/deliveries/{waiting['id']}"
    assert hooks.call("GET", one).json["state"] == "Failed"
    assert hooks.call("POST", f"{HOOKS}/changed:test").status == 409
    assert hooks.call("POST", f"{one}:replay").status == 409
    on = hooks.call("PATCH", f"{HOOKS}/changed", {"enabled": True}).json
    assert (on["enabled"], on["disabledReason"], on["disabledAt"]) == (True, "", None)
    replayed = hooks.call("POST", f"{one}:replay")
    assert (replayed.status, replayed.json["state"], replayed.json["eventId"]) == (202, "Pending", waiting["eventId"])
    assert hooks.call("POST", f"{one}:replay").status == 409
    assert hooks.call("POST", f"{HOOKS}/changed/deliveries/{'f' * 32}:replay").status == 404


def test_deliveries_come_in_pages(hooks: Installation) -> None:
    made(hooks, "paged")
    sent = [hooks.call("POST", f"{HOOKS}/paged:test").json["id"] for _ in range(5)]
    found, cursor = [], ""
    while True:
        page = hooks.call("GET", f"{HOOKS}/paged/deliveries?limit=2&state=Pending{cursor}").json
        found += [each["id"] for each in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == sent[::-1]
    bad = hooks.call("GET", f"{HOOKS}/paged/deliveries?limit=2{cursor}")
    assert (bad.status, bad.json["code"]) == (400, "bad-cursor")
    assert page["items"][0]["payload"]["data"] == {"namespace": NAMESPACE, "webhook": "paged"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "http://hooks.example.com/"}, "/url"),
        ({"url": "https://127.0.0.1/"}, "/url"),
        ({"url": "https://user:word@hooks.example.com/"}, "/url"),
        ({"url": "https://hooks.example.com:22/"}, "/url"),
        ({"url": "https://metadata.google.internal/"}, "/url"),
        ({"url": ""}, "/url"),
        ({"types": []}, "/types"),
        ({"types": ["task.started"]}, "/types/0"),
        ({"tasks": "Some"}, "/tasks"),
        ({"name": "A"}, "/name"),
        ({"secret": "x"}, "/secret"),
    ],
)
def test_a_forbidden_change_is_a_problem_that_names_it(hooks: Installation, body: dict[str, Any], pointer: str) -> None:
    refused = hooks.call("POST", HOOKS, {"name": "refused", "url": URL} | body)
    assert refused.status == 422
    assert [each["pointer"] for each in refused.json["errors"]] == [pointer]
    assert hooks.call("GET", f"{HOOKS}/refused").status == 404


def test_a_change_to_nothing_or_to_a_forbidden_url_is_refused(hooks: Installation) -> None:
    made(hooks, "steady")
    for body in ({}, {"url": "https://10.0.0.1/"}, {"name": "other"}):
        assert hooks.call("PATCH", f"{HOOKS}/steady", body).status == 422
    assert hooks.call("GET", f"{HOOKS}/steady").json["url"] == URL


def test_rights_are_of_the_resource_webhooks(hooks: Installation) -> None:
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/x"), ("POST", "/x:rotate"), ("GET", "/x/deliveries")):
        body = {"name": "x", "url": URL} if (method, path) == ("POST", "") else None
        refused = hooks.call(method, HOOKS + path, body, account="reader")
        assert (refused.status, "webhooks.taskflow.dev" in refused.json["detail"]) == (403, True)


def test_a_task_created_over_rest_can_name_endpoints(hooks: Installation) -> None:
    body = {"generateName": "told-", "spec": {"handler": "a.b", "notify": ["billing"]}}
    answer = hooks.call("POST", f"/v1/namespaces/{NAMESPACE}/tasks", body)
    assert answer.status == 201, answer.body
    body["spec"] = {"handler": "a.b", "notify": ["No"]}
    assert hooks.call("POST", f"/v1/namespaces/{NAMESPACE}/tasks", body).status == 422


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["notifier"], {}, "TASKFLOW_WEBHOOKS_ENABLED must be true"),
        (["notifier"], {"TASKFLOW_WEBHOOKS_ENABLED": "true"}, "needs TASKFLOW_WEBHOOKS_KEY"),
        (["notifier"], {"TASKFLOW_WEBHOOKS_ENABLED": "true", "TASKFLOW_WEBHOOKS_KEY": "hunter2"}, "expected 32 bytes"),
        ([], {"TASKFLOW_WEBHOOKS_ENABLED": "true"}, "needs TASKFLOW_WEBHOOKS_KEY"),
    ],
)
def test_without_a_key_neither_api_nor_notifier_starts(
    hooks: Installation, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    known = {name: value for name, value in hooks.stack.component_env("api").items() if "WEBHOOKS" not in name}
    # Its /metrics is taken by the one that runs.
    known.pop("TASKFLOW_API_METRICS_PORT", None)
    done = subprocess.run(
        [sys.executable, "-m", "taskflow_api", *arguments],
        env=os.environ | known | {"TASKFLOW_API_PORT": "1"} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, said in done.stderr, "hunter2" in done.stderr) == (2, True, False), done.stderr
