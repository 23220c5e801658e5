from typing import Any

import pytest

from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.fakes import Api

KEYS = "/v1/namespaces/team-a/apikeys"
TASKS = "/v1/namespaces/team-a/tasks"
REPORTS = "system:serviceaccount:team-a:reports"
BODY = {"serviceAccount": "reports", "name": "ci", "scopes": ["read", "write"]}


def made() -> Api:
    api = Api()
    api.kube.answers["/api/v1/namespaces/team-a/serviceaccounts/reports"] = {"metadata": {"uid": "u1"}}
    return api


async def new_key(api: Api, **fields: Any) -> Any:
    answer = await api.call("POST", KEYS, BODY | fields)
    assert answer.status == 201, answer.body
    return answer.json


async def test_a_key_is_shown_once_listed_used_and_revoked() -> None:
    api = made()
    api.kube.allowed[REPORTS] = "team-a"
    answer = await api.call("POST", KEYS, BODY)
    key = answer.json
    assert answer.headers["location"] == f"{KEYS}/{key['id']}"
    assert (key["createdBy"], key["lastUsedAt"], key["scopes"]) == ("alice", None, ["read", "write"])
    for path in (KEYS, KEYS + "?serviceAccount=reports", f"{KEYS}/{key['id']}"):
        shown = await api.call("GET", path)
        assert shown.status == 200
        assert key["id"].encode() in shown.body
        assert key["key"][-40:].encode() not in shown.body
        assert b"digest" not in shown.body
    assert (await api.call("GET", KEYS + "?serviceAccount=other")).json == {"items": []}
    assert (await api.call("GET", TASKS, token=key["key"])).status == 200
    assert (await api.call("DELETE", f"{KEYS}/{key['id']}")).status == 204
    assert (await api.call("GET", TASKS, token=key["key"])).status == 401
    assert (await api.call("DELETE", f"{KEYS}/{key['id']}")).status == 404


async def test_creating_a_key_needs_the_permission_to_act_as_its_service_account() -> None:
    api = made()
    await new_key(api)
    (review,) = [body["spec"] for _, path, body in api.kube.calls if path.endswith("subjectaccessreviews")]
    assert review["user"] == "alice"
    assert review["resourceAttributes"] == {
        "group": "",
        "resource": "serviceaccounts",
        "subresource": "token",
        "verb": "create",
        "namespace": "team-a",
        "name": "reports",
    }
    refused = await api.call("POST", KEYS, BODY, token="bob-token")
    assert refused.status == 403
    assert refused.json["detail"] == "bob may not create serviceaccounts/token in namespace team-a"


async def test_callers_without_permission_cannot_tell_whether_a_key_exists() -> None:
    api = made()
    key = await new_key(api)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ":rotate")):
        there = await api.call(method, f"{KEYS}/{key['id']}{path}", token="bob-token")
        absent = await api.call(method, f"{KEYS}/{'0' * 16}{path}", token="bob-token")
        assert (there.status, there.json["detail"]) == (absent.status, absent.json["detail"])
        assert there.status == 403
    # In another namespace it is not there, for whoever may do everything in that one.
    api.kube.allowed["bob"] = "team-b"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ":rotate")):
        answer = await api.call(method, f"/v1/namespaces/team-b/apikeys/{key['id']}{path}", token="bob-token")
        assert answer.status == 404
    assert key["id"] in api.keys.rows


async def test_api_keys_cannot_manage_api_keys() -> None:
    api = made()
    api.kube.allowed[REPORTS] = "team-a"
    key = await new_key(api)
    for method, path, body in (
        ("POST", KEYS, BODY),
        ("GET", KEYS, None),
        ("GET", f"{KEYS}/{key['id']}", None),
        ("POST", f"{KEYS}/{key['id']}:rotate", None),
        ("DELETE", f"{KEYS}/{key['id']}", None),
    ):
        answer = await api.call(method, path, body, token=key["key"])
        assert (answer.status, "an API key may not" in answer.json["detail"]) == (403, True)
    assert list(api.keys.rows) == [key["id"]]


@pytest.mark.parametrize(("scope", "read", "write"), [("read", 200, 403), ("write", 403, 201)])
async def test_scopes_are_checked_before_rbac(scope: str, read: int, write: int) -> None:
    api = made()
    api.kube.allowed[REPORTS] = "team-a"
    key = (await new_key(api, scopes=[scope]))["key"]
    api.kube.calls.clear()
    assert (await api.call("GET", TASKS, token=key)).status == read
    task = {"name": "x", "spec": {"handler": "a.b"}}
    assert (await api.call("POST", TASKS, task, token=key)).status == write
    assert sum(path.endswith("subjectaccessreviews") for _, path, _ in api.kube.calls) == 1


async def test_rbac_decides_within_the_scopes() -> None:
    api = made()
    key = (await new_key(api))["key"]
    answer = await api.call("GET", TASKS, token=key)
    assert answer.status == 403
    assert answer.json["detail"] == f"{REPORTS} may not list tasks.taskflow.dev in namespace team-a"


async def test_a_key_is_rotated_once() -> None:
    api = made()
    old = await new_key(api, expirationSeconds=6000)
    new = await api.call("POST", f"{KEYS}/{old['id']}:rotate", {"graceSeconds": 60})
    assert (new.status, new.json["scopes"], new.json["key"] != old["key"]) == (201, old["scopes"], True)
    assert (await api.call("GET", f"{KEYS}/{old['id']}")).json["replacedBy"] == new.json["id"]
    again = await api.call("POST", f"{KEYS}/{old['id']}:rotate")
    assert (again.status, again.json["code"]) == (409, "conflict")
    assert (await api.call("POST", f"{KEYS}/{new.json['id']}:rotate")).status == 201


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": []},
        {"scopes": ["admin"]},
        {"scopes": "read"},
        {"expirationSeconds": 599},
        {"expirationSeconds": 10**9},
        {"serviceAccount": "a/b"},
        {"serviceAccount": "Reports"},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"namespace": "team-b"},
        {"createdBy": "admin"},
    ],
)
async def test_values_out_of_bounds_are_refused(fields: dict[str, Any]) -> None:
    api = made()
    answer = await api.call("POST", KEYS, BODY | fields)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert api.keys.rows == {}


async def test_a_missing_service_account_is_404_and_a_database_outage_503() -> None:
    api = made()
    assert (await api.call("POST", KEYS, BODY | {"serviceAccount": "nobody"})).status == 404
    api.keys.failure = Unavailable("history database: secret host")
    answer = await api.call("GET", f"{KEYS}/{'0' * 16}")
    assert (answer.status, b"secret" in answer.body) == (503, False)


async def test_creation_and_revocation_of_keys_are_audited(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    api = made()
    api.kube.allowed[REPORTS] = "team-a"
    key = await new_key(api)
    await api.call("POST", TASKS, {"name": "x", "spec": {"handler": "a.b"}}, token=key["key"])
    await api.call("DELETE", f"{KEYS}/{key['id']}")
    said = capsys.readouterr().out + caplog.text
    lines = [line for line in said.splitlines() if "audit" in line]
    assert len(lines) == 3
    for line, parts in zip(
        lines,
        (
            ("user=alice", "method=kubernetes", "verb=create", "resource=apikeys", f"name={key['id']}", "status=201"),
            (f"user={REPORTS}", "method=apikey", f"subject={key['id']}", "verb=create", "resource=tasks", "status=201"),
            ("user=alice", "verb=delete", "resource=apikeys", f"name={key['id']}", "status=204"),
        ),
        strict=True,
    ):
        assert all(part in line for part in parts), line
    assert key["key"] not in said
