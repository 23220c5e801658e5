"""Rate limits: what a request costs, what the answer tells, and what happens without Redis."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from taskflow_api.gcra.counters import RETRY_SECONDS, LocalCounter
from taskflow_api.gcra.limit import Limit, LimitState, headers
from taskflow_api.limits import dependency
from taskflow_api.limits.costs import COSTS, cost
from taskflow_api.limits.limiter import Limiter
from taskflow_api.settings import LimitSettings
from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.fakes import Api, Clock

TASKS = "/v1/namespaces/team-a/tasks"


class Shared:
    """A Redis that can be unavailable and otherwise counts in memory."""

    def __init__(self, clock: Clock) -> None:
        self.counter, self.down, self.asked = LocalCounter(clock), False, 0

    async def consume(self, limits: Sequence[Limit], units: int) -> list[LimitState]:
        self.asked += 1
        if self.down:
            raise Unavailable("Redis: down")
        return await self.counter.consume(limits, units)


def limiter(clock: Clock, shared: Shared | None = None, **numbers: Any) -> Limiter:
    known: dict[str, Any] = {"caller_per_minute": 60, "namespace_per_minute": 0, "namespaces": {}} | numbers
    return Limiter(shared, clock=clock, **known)


async def test_each_limited_route_has_a_cost_and_consumes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Api(register=True)
    taken: list[str] = []

    def noted(method: str, operation: str) -> int:
        taken.append(operation)
        return cost(method, operation)

    monkeypatch.setattr(dependency, "cost", noted)
    counted, free = [], set()
    for path, methods in api.app.openapi()["paths"].items():
        for method, told in methods.items():
            before = len(taken)
            await api.call(method.upper(), re.sub(r"\{[^}]*\}", "x", path))
            if len(taken) > before:
                counted.append(told["operationId"])
            else:
                free.add(told["operationId"])
    assert free == {"getLiveness", "getReadiness", "getStartup", "getVersion"}
    assert taken == counted
    assert set(counted) == set(COSTS)


def test_writes_cost_more_than_reads() -> None:
    assert cost("GET", "getTask") < cost("GET", "listTasks") < cost("POST", "createTask") < cost("POST", "createTasks")


async def test_a_caller_has_so_many_units_and_they_come_back_evenly() -> None:
    clock = Clock()
    limits = limiter(clock)
    for _ in range(12):
        (state,) = await limits.consume("alice", "", 5, write=True)
        assert state.passes
    (state,) = await limits.consume("alice", "", 5, write=True)
    assert (state.passes, state.remaining, state.wait_micros) == (False, 0, 5_000_000)
    assert (await limits.consume("bob", "", 5, write=True))[0].passes
    clock.now += 5
    assert (await limits.consume("alice", "", 5, write=True))[0].passes
    assert not (await limits.consume("alice", "", 1, write=True))[0].passes


async def test_a_request_refused_by_one_limit_is_counted_by_none() -> None:
    clock = Clock()
    limits = limiter(clock, namespace_per_minute=1000, namespaces={"team-a": 10})
    passed = [await limits.consume("alice", "team-a", 5, write=True) for _ in range(3)]
    assert [[each.passes for each in found] for found in passed] == [[True, True], [True, True], [True, False]]
    # Alice was refused by the namespace, so she has 50 of 60 left elsewhere.
    assert (await limits.consume("alice", "team-b", 50, write=True))[0].remaining == 0


async def test_a_key_can_have_a_limit_in_addition_to_that_of_its_identity() -> None:
    limits = limiter(Clock(), key_per_minute=10, keys={"big": 50})

    async def passes(key: str) -> dict[str, bool]:
        found = await limits.consume("ci", "", 10, write=True, api_key=key)
        return {each.limit.name: each.passes for each in found}

    assert await passes("") == {"caller": True}
    assert [await passes("small") for _ in range(2)] == [{"caller": True, "key": passed} for passed in (True, False)]
    assert [await passes("big") for _ in range(4)] == [{"caller": True, "key": True}] * 4
    assert await passes("big") == {"caller": False, "key": True}


async def test_a_cost_above_the_quota_consumes_all_of_it() -> None:
    limits = limiter(Clock())
    assert (await limits.consume("alice", "", 100, write=True))[0].passes
    assert not (await limits.consume("alice", "", 1, write=False))[0].passes


async def test_without_redis_reads_pass_and_writes_are_counted_here() -> None:
    clock = Clock()
    shared = Shared(clock)
    limits = limiter(clock, shared)
    shared.down = True
    with capture_logs() as logs:
        for _ in range(100):
            assert await limits.consume("alice", "", 1, write=False) == []
        passed = [(await limits.consume("alice", "", 5, write=True))[0].passes for _ in range(14)]
        assert passed == [True] * 12 + [False] * 2
        # Requests do not wait for a Redis that has just failed.
        assert shared.asked == 1
        shared.down = False
        clock.now += RETRY_SECONDS
        assert (await limits.consume("alice", "", 5, write=True))[0].passes
    assert [line["event"] for line in logs] == ["limits_counted_locally", "limits_counted_in_redis"]
    assert limits.uncounted_reads == 100


async def test_headers_report_the_remaining_units_and_when_to_retry() -> None:
    api = Api(limiter=limiter(Clock()))
    answer = await api.call("GET", TASKS)
    assert (answer.status, answer.headers["ratelimit-policy"], answer.headers["ratelimit"]) == (
        200,
        '"caller";q=60;w=60',
        '"caller";r=58;t=2',
    )
    answers = [await api.call("POST", TASKS, {"name": f"x{number}", "spec": {"handler": "h"}}) for number in range(12)]
    assert [each.status for each in answers[:11]] == [201] * 11
    refused = answers[11]
    assert (refused.status, refused.headers["retry-after"]) == (429, "2")
    assert refused.headers["ratelimit"] == '"caller";r=3;t=57'
    problem = refused.json
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (problem["code"], problem["violated-policies"]) == ("quota-exceeded", ["caller"])


async def test_open_routes_are_not_limited() -> None:
    api = Api(limiter=limiter(Clock(), caller_per_minute=1))
    for _ in range(5):
        assert (await api.call("GET", "/livez", token="")).status == 200


async def test_requests_without_a_token_are_limited_by_address() -> None:
    api = Api(register=True, limiter=limiter(Clock(), caller_per_minute=10))
    body = {"username": "somebody", "password": "not the password"}
    statuses = [(await api.call("POST", "/v1/auth/token", body, token="")).status for _ in range(3)]
    assert statuses == [401, 401, 429]


async def test_a_thousand_callers_do_not_grow_the_memory_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskflow_api.gcra.counters.MAX_KEYS", 10)
    counter = LocalCounter(Clock())
    await asyncio.gather(*(counter.consume([Limit("caller", str(number), 60)], 1) for number in range(1000)))
    assert len(counter._arrivals) == 10


def test_headers_have_all_limits_and_wait_for_the_last() -> None:
    one, two = Limit("caller", "c", 60), Limit("namespace", "n", 600)
    found = headers([LimitState(one, False, 0, 60_000_000, 1_000_001), LimitState(two, False, 5, 3_000_000, 200)])
    assert found == {
        "RateLimit-Policy": '"caller";q=60;w=60, "namespace";q=600;w=60',
        "RateLimit": '"caller";r=0;t=60, "namespace";r=5;t=3',
        "Retry-After": "2",
    }


@pytest.mark.parametrize(("text", "found"), [("", {}), ("a=1", {"a": 1}), (" a=1 , b=0,", {"a": 1, "b": 0})])
def test_namespaces_of_settings(text: str, found: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_LIMITS_NAMESPACES", text)
    assert LimitSettings().namespaces == found


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=-1", "a=x"])
def test_invalid_namespaces_of_settings(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_LIMITS_NAMESPACES", text)
    with pytest.raises(ValueError, match="NAME=UNITS"):
        LimitSettings()
