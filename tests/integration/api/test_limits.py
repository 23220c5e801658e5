"""Limits of the running API, and a Redis that says nothing."""

import asyncio

import pytest
from pydantic import SecretStr

from taskflow_api.gcra.counters import TIMEOUT_SECONDS, RedisCounter
from taskflow_api.gcra.limit import Limit
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.pipelining import PipelinedClient
from taskflow_core.settings import RedisSettings
from tests.integration.api.conftest import Installation

pytestmark = pytest.mark.integration


async def test_a_silent_redis_counts_as_unavailable_at_once() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = connect_async(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0")))
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable, match="no answer"):
        await RedisCounter(PipelinedClient(client, TIMEOUT_SECONDS)).consume([Limit("caller", "k", 60)], 1)
    assert loop.time() - began < 3
    await client.aclose()
    server.close()


def test_answers_of_the_running_api_report_the_remaining_units(installation: Installation) -> None:
    answer = installation.call("GET", "/v1/namespaces/default/tasks")
    assert answer.headers["RateLimit-Policy"] == '"caller";q=1000000;w=60'
    assert answer.headers["RateLimit"].startswith('"caller";r=')
