"""Cached answers apply all checks of the route, and leave every other case to it."""

from __future__ import annotations

from typing import Any

import pytest

from taskflow_api.http.kubernetes_auth import Scope
from taskflow_api.limits.limiter import Limiter
from taskflow_api.metrics import REGISTRY
from taskflow_core.ledger.cache_versions import version_key
from tests.unit.taskflow_api.fakes import Answer, Api, Clock
from tests.unit.taskflow_api.test_limits import Shared, limiter

TASK = "/v1/namespaces/team-a/tasks/report"


class Memory:
    """Redis in one round trip, in memory."""

    def __init__(self) -> None:
        self.values = {version_key("team-a"): "mark"}

    async def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        return [self._do(*command) for command in commands]

    def _do(self, verb: str, key: str, *rest: Any) -> Any:
        if verb == "SET":
            self.values[key] = rest[0]
        return self.values.get(key)


def api_with(limits: Limiter | None = None) -> Api:
    return Api(limiter=limits, cache=Memory())


async def read(api: Api, **headers: str) -> Answer:
    return await api.call("GET", TASK, **headers)


async def kept(api: Api) -> Answer:
    """Have the Task's answer kept."""
    await api.call("POST", "/v1/namespaces/team-a/tasks", {"name": "report", "spec": {"handler": "h"}})
    first = await read(api)
    assert (first.status, "cache-status" in first.headers) == (200, False)
    return first


def routed() -> float:
    return (
        REGISTRY.get_sample_value(
            "http_server_request_duration_seconds_count",
            {
                "http_request_method": "GET",
                "http_route": "/v1/namespaces/{namespace}/tasks/{name}",
                "http_response_status_code": "200",
            },
        )
        or 0.0
    )


async def test_a_cached_answer_equals_that_of_the_route_and_makes_no_requests() -> None:
    api = api_with()
    first = await kept(api)
    asked, counted = len(api.kube.calls), routed()
    again = await read(api)
    assert (again.status, again.body, again.headers["etag"]) == (200, first.body, first.headers["etag"])
    assert again.headers["cache-status"] == "taskflow; hit"
    assert {"x-request-id", "x-content-type-options", "cache-control"} <= again.headers.keys()
    assert len(api.kube.calls) == asked
    assert routed() == counted + 1


async def test_a_matching_etag_gives_304_and_a_long_one_is_refused() -> None:
    api = api_with()
    first = await kept(api)
    assert (await read(api, if_none_match=first.headers["etag"])).status == 304
    assert (await read(api, if_none_match="x" * 129)).status == 422


@pytest.mark.parametrize("token", ["bob-token", "nobodys", ""])
async def test_a_cached_answer_needs_the_permission_of_each_caller(token: str) -> None:
    api = api_with()
    await kept(api)
    answer = await api.call("GET", TASK, token=token)
    assert answer.status == (403 if token == "bob-token" else 401)


async def test_an_expired_permission_is_checked_again() -> None:
    api = api_with()
    await kept(api)
    api.kube.allowed.clear()
    assert (await read(api)).status == 200
    api.clock.now += 11
    assert (await read(api)).status == 403


async def test_a_key_without_the_right_to_read_does_not_read() -> None:
    api = api_with()
    await kept(api)
    caller = await api.auth.authenticate("alice-token")
    assert caller is not None
    object.__setattr__(caller, "scopes", frozenset({Scope.WRITE}))
    assert (await read(api)).status == 403


async def test_every_read_is_counted_once() -> None:
    clock = Clock()
    shared = Shared(clock)
    api = api_with(limiter(clock, shared))
    await kept(api)
    shared.asked = 0
    hit = await read(api)
    assert (shared.asked, "ratelimit" in hit.headers) == (1, True)
    missed = await api.call("GET", TASK + "-2")
    assert (shared.asked, missed.status, "ratelimit" in missed.headers) == (2, 404, True)


async def test_rate_limits_apply_to_cached_answers() -> None:
    clock = Clock()
    api = api_with(limiter(clock, Shared(clock), caller_per_minute=8))
    await kept(api)
    answers = [await read(api) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert "retry-after" in answers[-1].headers


@pytest.mark.parametrize(
    "path", [TASK.replace("team-a", "a" * 64), TASK + "s" * 253, TASK.upper(), TASK + "/", TASK + ":x"]
)
async def test_other_paths_go_to_the_routes(path: str) -> None:
    api = api_with()
    await kept(api)
    assert (await api.call("GET", path)).status in (307, 403, 404, 405, 422)
