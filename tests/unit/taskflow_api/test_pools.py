from typing import Any

from taskflow_core.errors import Conflict
from tests.unit.taskflow_api.fakes import Api

PATH = "/apis/taskflow.dev/v1alpha1/namespaces/team-a/workerpools"
POOLS = "/v1/namespaces/team-a/pools"


def body(name: str = "main", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": "u",
            "resourceVersion": "7",
            "creationTimestamp": "2026-09-20T12:00:00Z",
        },
        "spec": {"queues": ["default"], "concurrency": 2} | spec,
        "status": {
            "desiredReplicas": 1,
            "readyReplicas": 1,
            "slots": 2,
            "busySlots": 1,
            "demand": 4,
            "queued": 3,
            "queueDepths": {"default": 3},
            "oldestWaitingSeconds": 9,
            "lastDecision": {
                "time": "2026-09-20T12:01:00Z",
                "replicas": 1,
                "reason": "Demand",
                "message": "4 slots wanted",
            },
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "WorkersReady",
                    "message": "1 of 1 workers are ready",
                    "lastTransitionTime": "2026-09-20T12:01:00Z",
                },
            ],
        },
    }


def stored() -> Api:
    api = Api()
    api.kube.objects[PATH + "/main"] = body()
    return api


async def test_a_pool_is_shown_with_its_numbers() -> None:
    answer = await stored().call("GET", POOLS + "/main")
    assert (answer.status, answer.headers["etag"]) == (200, '"7"')
    found = answer.json
    assert (found["slots"], found["busySlots"], found["demand"], found["queueDepths"]) == (2, 1, 4, {"default": 3})
    assert (found["reason"], found["lastDecision"]["reason"], found["replicas"]) == ("WorkersReady", "Demand", 1)


async def test_a_pool_that_the_operator_has_not_seen_has_no_figures() -> None:
    api = stored()
    fresh = body(scaling={"minReplicas": 0, "maxReplicas": 3})
    del fresh["status"]
    api.kube.objects[PATH + "/main"] = fresh
    found = (await api.call("GET", POOLS + "/main")).json
    assert (found["slots"], found["replicas"], found["scaling"]["maxReplicas"]) == (None, None, 3)


async def test_pools_are_listed() -> None:
    api = stored()
    api.kube.objects[PATH] = {"items": [body("a"), body("b")], "metadata": {"continue": "next"}}
    answer = await api.call("GET", POOLS + "?limit=2")
    assert ([item["name"] for item in answer.json["items"]], answer.json["nextCursor"]) == (["a", "b"], "next")
    api.kube.failure, api.kube.fail_on = Conflict("410"), "workerpools"
    answer = await api.call("GET", POOLS + "?cursor=old")
    assert (answer.status, answer.json["code"]) == (400, "bad-cursor")


async def test_a_pool_is_paused_as_it_was_read_or_not_at_all() -> None:
    api = stored()
    answer = await api.call("PATCH", POOLS + "/main", {"spec": {"paused": True}}, If_Match='"7"')
    assert (answer.status, answer.json["paused"], answer.json["drain"], answer.headers["etag"]) == (
        200,
        True,
        False,
        '"8"',
    )
    assert api.kube.calls[-1][2] == {"spec": {"paused": True}, "metadata": {"resourceVersion": "7"}}
    answer = await api.call("PATCH", POOLS + "/main", {"spec": {"drain": True}}, If_Match='"7"')
    assert (answer.status, answer.json["code"]) == (412, "changed-since")
    answer = await api.call("PATCH", POOLS + "/main", {"spec": {"drain": True}})
    assert (answer.status, answer.json["drain"]) == (200, True)


async def test_nothing_else_of_a_pool_may_be_changed_here() -> None:
    api = stored()
    refused: tuple[dict[str, Any], ...] = (
        {"template": {}},
        {"replicas": 0},
        {},
        {"paused": None},
        {"paused": "yes"},
    )
    for spec in refused:
        answer = await api.call("PATCH", POOLS + "/main", {"spec": spec})
        assert answer.status == 422, spec
    assert not [call for call in api.kube.calls if call[0] == "PATCH"]


async def test_rights_are_those_on_workerpools() -> None:
    api = stored()
    for method, url, sent in (
        ("GET", POOLS, None),
        ("GET", POOLS + "/main", None),
        ("PATCH", POOLS + "/main", {"spec": {"drain": True}}),
    ):
        answer = await api.call(method, url, sent, token="bob-token")
        assert (answer.status, "workerpools.taskflow.dev" in answer.json["detail"]) == (403, True)
        review = next(call[2] for call in reversed(api.kube.calls) if call[1].endswith("subjectaccessreviews"))
        assert review["spec"]["resourceAttributes"]["resource"] == "workerpools"
    assert (await api.call("GET", POOLS + "/none")).status == 404
    assert (await api.call("PATCH", POOLS + "/none", {"spec": {"drain": True}})).status == 404
