import pytest

from taskflow_api.http.kubernetes_auth import CACHE_ENTRIES, Caller, ExpiringCache, KubernetesAuth
from taskflow_core.errors import Forbidden, Unavailable
from tests.unit.taskflow_api.fakes import Api, Clock, FakeKube

TASKS = "/v1/namespaces/team-a/tasks"


def _reviews(kube: FakeKube, kind: str) -> int:
    return sum(path.endswith(kind) for _, path, _ in kube.calls)


async def test_a_valid_token_is_reviewed_once_in_30_seconds() -> None:
    api = Api()
    for _ in range(3):
        assert await api.auth.authenticate("alice-token") == Caller("alice", "", ("g",))
    assert _reviews(api.kube, "tokenreviews") == 1
    api.clock.now += 30
    await api.auth.authenticate("alice-token")
    assert _reviews(api.kube, "tokenreviews") == 2


async def test_a_negative_token_review_is_not_cached() -> None:
    api = Api()
    for _ in range(2):
        assert await api.auth.authenticate("junk") is None
    assert _reviews(api.kube, "tokenreviews") == 2


async def test_a_permission_is_cached_for_10_seconds_and_a_refusal_is_not() -> None:
    api = Api()
    alice, bob = Caller("alice"), Caller("bob")
    for _ in range(2):
        assert await api.auth.allows(alice, "get", "team-a", "x")
    assert _reviews(api.kube, "subjectaccessreviews") == 1
    assert not await api.auth.allows(alice, "get", "team-b", "x")
    assert await api.auth.allows(alice, "delete", "team-a", "x")
    assert await api.auth.allows(alice, "get", "team-a", "y")
    assert _reviews(api.kube, "subjectaccessreviews") == 4
    for _ in range(2):
        assert not await api.auth.allows(bob, "get", "team-a", "x")
    api.clock.now += 10
    assert await api.auth.allows(alice, "get", "team-a", "x")
    assert _reviews(api.kube, "subjectaccessreviews") == 7


async def test_the_whole_identity_is_reviewed() -> None:
    api = Api()
    await api.auth.allows(Caller("alice", "u1", ("g1",), (("k", ("v",)),)), "create", "team-a")
    spec = api.kube.calls[-1][2]["spec"]
    assert (spec["user"], spec["uid"], spec["groups"], spec["extra"]) == ("alice", "u1", ["g1"], {"k": ["v"]})
    assert spec["resourceAttributes"]["resource"] == "tasks"
    assert spec["resourceAttributes"]["group"] == "taskflow.dev"


@pytest.mark.parametrize(("answered", "taken"), [(["taskflow"], True), (["other"], False), ([], False)])
async def test_a_token_for_another_audience_is_refused(answered: list[str], taken: bool) -> None:
    kube = FakeKube()
    status = {"authenticated": True, "user": {"username": "alice"}, "audiences": answered}
    kube.answers["/apis/authentication.k8s.io/v1/tokenreviews"] = {"status": status}
    caller = await KubernetesAuth(kube, ["taskflow"], Clock()).authenticate("t")
    assert kube.calls[0][2]["spec"]["audiences"] == ["taskflow"]
    assert (caller is not None) is taken


async def test_a_refused_review_is_not_the_callers_fault() -> None:
    api = Api()
    api.kube.failure = Forbidden("tokenreviews is forbidden")
    with pytest.raises(Unavailable, match="TokenReview refused"):
        await api.auth.authenticate("alice-token")


def test_the_cache_forgets_the_oldest_when_it_is_full() -> None:
    clock = Clock()
    cache = ExpiringCache[int, str](10, 2, clock)
    for key in (1, 2, 1, 3):
        cache.put(key, "x")
    assert [cache.get(key) for key in (1, 2, 3)] == ["x", None, "x"]
    assert CACHE_ENTRIES <= 10_000


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", "Bearer ", "Bearer junk", "alice-token"])
@pytest.mark.parametrize("path", [TASKS, "/", "/no/such/path", "/docs", "/openapi.json/", "/livez/"])
async def test_nothing_answers_without_a_valid_token(path: str, header: str) -> None:
    answer = await Api().call("GET", path, token="", authorization=header)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json["code"] == "unauthenticated"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/openapi.json"])
async def test_health_version_and_openapi_need_no_token(path: str) -> None:
    answer = await Api().call("GET", path, token="")
    assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "verb"),
    [
        ("GET", TASKS, "list"),
        ("POST", TASKS, "create"),
        ("GET", TASKS + "/x", "get"),
        ("DELETE", TASKS + "/x", "delete"),
        ("GET", TASKS + "/x/artifacts", "get"),
        ("GET", TASKS + "/x/artifacts/y", "get"),
        ("POST", "/v1/namespaces/team-a/uploads", "create"),
    ],
)
async def test_every_route_asks_for_its_verb_and_the_refusal_names_it(method: str, path: str, verb: str) -> None:
    api = Api()
    answer = await api.call(method, path, {} if method == "POST" else None, token="bob-token")
    assert answer.status == 403
    assert answer.json["detail"] == f"bob may not {verb} tasks.taskflow.dev in namespace team-a"
    assert [path for _, path, _ in api.kube.calls if "taskflow.dev" in path] == []


async def test_an_api_server_outage_is_unavailable() -> None:
    api = Api()
    api.kube.failure = Unavailable("API server: POST https://10.1.2.3/: refused")
    answer = await api.call("GET", TASKS)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert b"10.1.2.3" not in answer.body


@pytest.mark.parametrize(
    "path",
    ["/v1/namespaces/Team_A/tasks", "/v1/namespaces/a.b/tasks/x", "/v1/namespaces/team-a/tasks/%2E%2E", TASKS + "/A"],
)
async def test_a_name_that_kubernetes_could_not_have_is_sent_nowhere(path: str) -> None:
    api = Api()
    answer = await api.call("GET", path)
    assert (answer.status, answer.json["errors"][0]["location"]) == (422, "path")
    assert [path for _, path, _ in api.kube.calls] == ["/apis/authentication.k8s.io/v1/tokenreviews"]
