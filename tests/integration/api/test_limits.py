"""Limits on a real Redis, as the API's own user: exact, whoever counts."""

import asyncio

import pytest
from pydantic import SecretStr

from taskflow_api.limits.limiter import RedisCounter
from taskflow_api.limits.policy import Limit
from taskflow_core.broker import acl
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_async
from taskflow_core.settings import RedisSettings
from tests.integration.api.conftest import Installation

pytestmark = pytest.mark.integration


async def test_exactly_the_quota_passes_of_what_a_hundred_clients_ask_of_two_processes(
    installation: Installation,
) -> None:
    url = SecretStr(installation.stack.component_env("api")["TASKFLOW_LIMITS_URL"])
    assert acl.API in url.get_secret_value()
    # A process has connections of its own; that is all by which Redis could tell two of them apart.
    clients = [connect_async(RedisSettings(url=url)) for _ in range(2)]
    counters = [RedisCounter(client) for client in clients]
    # So slow that nothing comes back while the test runs.
    limits = [Limit("caller", "exact", 300), Limit("namespace", "exact-too", 100_000)]
    try:
        passed = 0

        async def ask(number: int) -> None:
            nonlocal passed
            for _ in range(10):
                passed += all(each.passes for each in await counters[number % 2].take(limits, 1))

        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(ask(number) for number in range(100)))
        seconds = loop.time() - began
        # What came back meanwhile, five a second, may be taken again.
        assert 300 <= passed <= 300 + 5 * seconds + 1
        (caller, namespace) = await counters[0].take([Limit("caller", "exact", 300), limits[1]], 300)
        assert (caller.passes, namespace.passes) == (False, True)
        # Nothing of what was refused was counted.
        assert namespace.left >= 100_000 - passed - 1
    finally:
        for client in clients:
            await client.aclose()


async def test_a_redis_that_says_nothing_is_away_at_once() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = connect_async(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0")))
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable, match="no answer"):
        await RedisCounter(client).take([Limit("caller", "k", 60)], 1)
    assert loop.time() - began < 3
    await client.aclose()
    server.close()


def test_an_answer_of_the_running_api_tells_what_is_left(installation: Installation) -> None:
    answer = installation.call("GET", "/v1/namespaces/default/tasks")
    assert answer.headers["RateLimit-Policy"] == '"caller";q=1000000;w=60'
    assert answer.headers["RateLimit"].startswith('"caller";r=')
