from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest

from taskflow_core.errors import Cause, Conflict, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import APPLY_PATCH, JSON_PATCH, Hooks, KubeClient, Page, resource_path, tasks_path


@dataclass
class Answer:
    status: int
    payload: bytes
    connection: None = None
    headers: dict[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return self.payload

    @property
    def content(self) -> Answer:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        """In pieces that know nothing of lines."""
        for start in range(0, len(self.payload), 7):
            yield self.payload[start : start + 7]


@dataclass
class FakeSession:
    """Gives prepared answers in order and keeps what was asked."""

    answers: list[Answer | Exception]
    asked: list[dict[str, Any]] = field(default_factory=list)

    @asynccontextmanager
    async def request(self, method: str, path: str, **rest: Any) -> AsyncIterator[Answer]:
        self.asked.append({"method": method, "path": path, **rest, "params": dict(rest["params"] or {})})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield answer


@dataclass
class FakeConfiguration:
    token: str | None = "Bearer secret"

    async def get_api_key_with_prefix(self, name: str) -> str | None:
        assert name == "BearerToken"
        return self.token


def client(*answers: Answer | Exception, hooks: Hooks | None = None) -> tuple[KubeClient, FakeSession]:
    session = FakeSession(list(answers))
    return KubeClient(cast("Any", session), cast("Any", FakeConfiguration()), hooks), session


def ok(**body: Any) -> Answer:
    return Answer(200, json.dumps(body).encode())


def refusal(status: int, message: str = "no", **rest: Any) -> Answer:
    return Answer(status, json.dumps({"kind": "Status", "message": message, **rest}).encode())


def test_paths_are_those_of_the_api_server() -> None:
    assert tasks_path() == "/apis/taskflow.dev/v1alpha1/tasks"
    assert tasks_path("n", "x") == "/apis/taskflow.dev/v1alpha1/namespaces/n/tasks/x"
    assert resource_path("api/v1", "pods", "n") == "/api/v1/namespaces/n/pods"


HOSTILE = [
    "",
    ".",
    "..",
    "../../victim/tasks/x",
    "..%2fvictim",
    "a/b",
    "a%2fb",
    "a?dryRun=All",
    "a#b",
    "a\\b",
    "a b",
    "a\n",
    "a\x00",
    "a;b",
    "A",
    "-a",
    "a-",
    "a..b",
    ".a",
    "a:cancel",
    "\N{FULLWIDTH SOLIDUS}a",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "a" * 254,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_none_leads_nowhere(name: str) -> None:
    for where in ((name,), ("team-a", name), (name, "x")):
        with pytest.raises(Invalid, match="no name of a Kubernetes object"):
            resource_path("api/v1", "pods", *where)
        with pytest.raises(Invalid, match="no name of a Kubernetes object"):
            tasks_path(*where)


def test_every_name_that_is_one_is_a_segment_of_the_path() -> None:
    for name in ("a", "0", "a-b", "a.b-c.d", "a" * 253, "xn--1ca"):
        assert tasks_path("team-a", name) == f"/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/{name}"
    with pytest.raises(Invalid):
        tasks_path("a" * 64)


async def test_a_request_carries_the_token_and_compact_json() -> None:
    kube, session = client(ok(a=1))
    assert await kube.request("POST", "/x", {"b": [1, 2]}) == {"a": 1}
    (asked,) = session.asked
    assert asked["headers"] == {"Content-Type": "application/json", "Authorization": "Bearer secret"}
    assert asked["data"] == b'{"b":[1,2]}'


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Invalid),
        (401, Unavailable),
        (403, Forbidden),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (410, Conflict),
        (413, Invalid),
        (422, Invalid),
        (429, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_each_refusal_becomes_the_error_that_says_what_to_do(status: int, error: type[TaskflowError]) -> None:
    kube, _ = client(refusal(status, "because of this"))
    with pytest.raises(error, match="because of this"):
        await kube.request("GET", "/x")


async def test_a_field_that_an_applied_type_has_not_is_a_refusal_though_the_server_says_500() -> None:
    told = (
        "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.typo: field not declared in schema"
    )
    kube, _ = client(refusal(500, told))
    with pytest.raises(Invalid, match="field not declared in schema"):
        await kube.apply("/x", {})


@pytest.mark.parametrize("failure", [aiohttp.ClientConnectionError("refused"), TimeoutError(), OSError("unreachable")])
async def test_no_answer_is_unavailable_and_names_the_request(failure: Exception) -> None:
    kube, _ = client(failure)
    with pytest.raises(Unavailable, match=r"API server: GET /x: (refused|TimeoutError|unreachable)"):
        await kube.request("GET", "/x")


async def test_the_causes_of_a_refusal_are_kept_field_by_field() -> None:
    causes = [{"field": "spec.queue", "message": "Invalid value", "reason": "FieldValueInvalid"}]
    kube, _ = client(refusal(422, details={"causes": causes}))
    with pytest.raises(Invalid) as caught:
        await kube.request("POST", "/x", {})
    assert caught.value.causes == (Cause("spec.queue", "Invalid value"),)


@pytest.mark.parametrize("payload", [b"<html>bad gateway</html>", b"[]", b"", b"\xff\xfe"])
async def test_a_refusal_that_is_no_status_object_is_still_told(payload: bytes) -> None:
    kube, _ = client(Answer(502, payload))
    with pytest.raises(Unavailable, match="API server answered 502"):
        await kube.request("GET", "/x")


async def test_a_list_is_read_page_by_page() -> None:
    kube, session = client(
        ok(items=[{"n": 1}], metadata={"continue": "next", "resourceVersion": "9"}),
        ok(items=[{"n": 2}], metadata={"continue": "", "resourceVersion": "9"}),
    )
    pages = [page async for page in kube.list_pages("/x", "status.phase!=Failed")]
    assert pages == [Page([{"n": 1}], "9"), Page([{"n": 2}], "9")]
    assert [each["params"].get("continue") for each in session.asked] == [None, "next"]
    assert {each["params"]["fieldSelector"] for each in session.asked} == {"status.phase!=Failed"}
    assert {each["params"]["limit"] for each in session.asked} == {"500"}


async def test_of_namespaces_that_are_not_cared_for_no_list_shows_anything() -> None:
    items = [{"metadata": {"name": name, "namespace": where}} for name, where in (("a", "ours"), ("b", "theirs"))]
    kube, session = client(
        ok(items=items, metadata={"resourceVersion": "9"}), hooks=Hooks(cares_for=lambda namespace: namespace == "ours")
    )
    assert [page.items async for page in kube.list_pages("/x", label_selector="l")] == [items[:1]]
    assert session.asked[0]["params"]["labelSelector"] == "l"


async def test_a_page_that_is_too_large_is_left_and_asked_for_again_in_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taskflow_core.kube.pages.MAX_PAGE_BYTES", 1000)
    large = ok(metadata={"resourceVersion": "9"}, items=[{"n": "x" * 2000}])
    small = [ok(metadata={"resourceVersion": "9", "continue": f"c{n}"}, items=[{"n": n}]) for n in range(2)]
    kube, session = client(large, small[0], small[1], large, large, large, large)
    pages = [page.items async for page in kube.list_pages(tasks_path())]
    # The last one is a single object, which is read whatever its size.
    assert pages == [[{"n": 0}], [{"n": 1}], [{"n": "x" * 2000}]]
    asked = [(asked["params"].get("continue"), asked["params"]["limit"]) for asked in session.asked]
    assert asked == [
        (None, "500"),
        (None, "62"),
        ("c0", "124"),
        ("c1", "248"),
        ("c1", "31"),
        ("c1", "3"),
        ("c1", "1"),
    ]


async def test_a_list_that_expired_between_pages_says_to_begin_again() -> None:
    kube, _ = client(ok(items=[], metadata={"continue": "next"}), refusal(410, "Expired"))
    with pytest.raises(Conflict, match="Expired"):
        [page async for page in kube.list_pages("/x")]


async def test_a_status_is_patched_only_into_the_same_task() -> None:
    kube, session = client(ok())
    await kube.patch_status("tasks", "n", "x", "uid-1", {"phase": "Running"})
    (asked,) = session.asked
    assert asked["path"].endswith("/namespaces/n/tasks/x/status")
    assert asked["headers"]["Content-Type"] == JSON_PATCH
    assert json.loads(asked["data"]) == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
        {"op": "add", "path": "/status", "value": {"phase": "Running"}},
    ]


async def test_another_task_of_that_name_is_a_conflict() -> None:
    kube, _ = client(refusal(422, "the server rejected our request due to an error in our request"))
    with pytest.raises(Conflict, match="no longer the one with uid uid-1"):
        await kube.patch_status("tasks", "n", "x", "uid-1", {})


async def test_any_other_refusal_of_a_status_is_passed_on() -> None:
    kube, _ = client(refusal(422, "status.phase: Unsupported value"))
    with pytest.raises(Invalid, match="Unsupported value"):
        await kube.patch_status("tasks", "n", "x", "uid-1", {})


async def test_an_apply_takes_the_fields_over() -> None:
    kube, session = client(ok())
    await kube.apply("/x", {"kind": "Deployment"})
    (asked,) = session.asked
    assert (asked["method"], asked["headers"]["Content-Type"]) == ("PATCH", APPLY_PATCH)
    assert asked["params"] == {"fieldManager": "taskflow-operator", "force": "true"}


def line(kind: str, **body: Any) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


async def watched(kube: KubeClient) -> list[dict[str, Any]]:
    return [event async for events in kube.watch("/x", "7", "status.phase!=Failed") for event in events]


async def test_a_watch_gives_whole_events_whatever_pieces_they_come_in() -> None:
    kube, session = client(Answer(200, line("ADDED", name="a") + line("BOOKMARK", n=1) + b'{"type":"ADDED","obj'))
    assert [event["type"] for event in await watched(kube)] == ["ADDED", "BOOKMARK"]
    (asked,) = session.asked
    assert asked["params"]["resourceVersion"] == "7"
    assert asked["params"]["allowWatchBookmarks"] == "true"
    assert asked["headers"] == {"Authorization": "Bearer secret"}


async def test_of_namespaces_that_are_not_cared_for_a_watch_tells_only_how_far_it_came() -> None:
    theirs = {"name": "b", "namespace": "theirs", "resourceVersion": "8"}
    kube, _ = client(
        Answer(200, line("ADDED", metadata={"namespace": "ours"}) + line("DELETED", metadata=theirs)),
        hooks=Hooks(cares_for=lambda namespace: namespace == "ours"),
    )
    first, second = await watched(kube)
    assert first["type"] == "ADDED"
    assert second == {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, line("ERROR", code=410, message="too old")), Conflict),
        (Answer(200, line("ERROR", code=504, message="timeout")), Unavailable),
        (refusal(410), Conflict),
        (refusal(503), Unavailable),
        (Answer(200, b"<html>\n"), Unavailable),
        (aiohttp.ClientPayloadError("cut"), Unavailable),
    ],
)
async def test_what_ends_a_watch_says_whether_to_list_again(
    answer: Answer | Exception, error: type[TaskflowError]
) -> None:
    kube, _ = client(answer)
    with pytest.raises(error):
        await watched(kube)


async def test_an_event_nested_too_deep_for_the_parser_ends_no_watch() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    kube, _ = client(Answer(200, b'{"type":"ADDED","object":{"spec":' + deep + b"}}\n" + line("ADDED", name="b")))
    assert [event["type"] for event in await watched(kube)] == ["ADDED", "ADDED"]


async def test_each_answer_shows_the_clock_of_the_server() -> None:
    answer = ok()
    answer.headers["Date"] = "Sun, 01 Mar 2026 12:00:00 GMT"
    kube, _ = client(answer)
    assert kube.clock.skew == 0
    await kube.request("GET", "/x")
    assert abs(kube.clock.skew) > 1
