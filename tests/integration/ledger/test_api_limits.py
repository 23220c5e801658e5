"""Rate limits of the REST API on a real Redis, as its own user: exact, whoever counts."""

import asyncio
import time

import pytest
import redis

from taskflow_api.gcra.counters import RedisCounter
from taskflow_api.gcra.limit import Limit
from taskflow_api.identity.attempt_limits import AttemptLimit
from taskflow_core.broker import acl
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.pipelining import PipelinedClient
from taskflow_core.settings import RedisSettings
from tests.redis_users import PASSWORD, as_user

pytestmark = pytest.mark.integration


async def test_exactly_the_quota_passes_of_what_a_hundred_clients_ask_of_two_processes(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    mine = as_user(settings, raw, acl.API, acl.api_rules(PASSWORD))
    # A process has connections of its own; that is all by which Redis could tell two of them apart.
    clients = [connect_async(mine) for _ in range(2)]
    # How soon Redis counts as away is not the question here, and a hundred clients share two cores with it.
    counters = [RedisCounter(PipelinedClient(client, 10.0)) for client in clients]
    # So slow that nothing comes back while the test runs.
    limits = [Limit("caller", "exact", 300), Limit("namespace", "exact-too", 100_000)]
    try:
        passed = 0

        async def ask(number: int) -> None:
            nonlocal passed
            for _ in range(10):
                found = await counters[number % 2].consume(limits, 1)
                passed += all(each.passes for each in found)

        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(ask(number) for number in range(100)))
        seconds = loop.time() - began
        # What came back meanwhile, five a second, may be taken again.
        assert 300 <= passed <= 300 + 5 * seconds + 1
        (caller, namespace) = await counters[0].consume([Limit("caller", "exact", 300), limits[1]], 300)
        assert (caller.passes, namespace.passes) == (False, True)
        # Nothing of what was refused was counted.
        assert namespace.remaining >= 100_000 - passed - 1
    finally:
        for client in clients:
            await client.aclose()


async def test_of_passwords_guessed_at_two_processes_at_once_five_are_looked_at(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    mine = as_user(settings, raw, acl.API, acl.api_rules(PASSWORD))
    clients = [connect_async(mine) for _ in range(2)]
    processes = [
        AttemptLimit("login", 5, 300, RedisCounter(PipelinedClient(client, 10.0)), time.monotonic) for client in clients
    ]
    try:
        waits = await asyncio.gather(*(processes[number % 2].consume("ann") for number in range(40)))
        assert sorted(waits)[:5] == [0] * 5
        assert all(50 <= wait <= 60 for wait in sorted(waits)[5:])
        await processes[0].reset("ann")
        # Redis forgets within a millisecond.
        await asyncio.sleep(0.01)
        assert await processes[1].consume("ann") == 0
    finally:
        for client in clients:
            await client.aclose()
