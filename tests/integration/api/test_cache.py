"""The read cache with a real Redis and PostgreSQL: through the API, and directly where the order of steps matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from pydantic import BaseModel, SecretStr

from taskflow_api.http.read_cache import HISTORY_SECONDS, CachedAnswer, CacheMiss, ReadCache
from taskflow_core.ledger.cache_versions import CacheVersions, version_key
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.pipelining import PipelinedClient
from taskflow_core.settings import RedisSettings
from tests.e2e.product import eventually
from tests.integration.api.conftest import NAMESPACE, Installation

pytestmark = pytest.mark.integration
TASKS = f"/v1/namespaces/{NAMESPACE}/tasks"


class Said(BaseModel):
    number: int


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[redis.asyncio.Redis]:
    url = installation.stack.env()["TASKFLOW_REDIS_URL"]
    async with connect_async(RedisSettings(url=SecretStr(url))) as found:
        yield found


@pytest.fixture
def admin(installation: Installation) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(installation.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True) as found:
        yield found


def made(installation: Installation, name: str) -> None:
    answer = installation.call("POST", TASKS, {"name": name, "spec": {"handler": "taskflow.echo"}})
    assert answer.status == 201, answer.body


def hit(answer: Any) -> bool:
    return "hit" in answer.headers.get("Cache-Status", "")


def test_a_second_reader_gets_the_same_answer_from_the_cache(installation: Installation) -> None:
    made(installation, "cached")
    installation.mirror()
    path = f"{TASKS}?limit=5&handler=taskflow.echo"
    installation.call("GET", path)
    first, second = installation.call("GET", path), installation.call("GET", path)
    assert hit(second)
    assert (first.status, first.body, first.headers.get("Link")) == (200, second.body, second.headers.get("Link"))
    one, again = installation.call("GET", f"{TASKS}/cached"), installation.call("GET", f"{TASKS}/cached")
    assert hit(again)
    assert (one.body, one.headers["ETag"]) == (again.body, again.headers["ETag"])
    unchanged = installation.call("GET", f"{TASKS}/cached", if_none_match=one.headers["ETag"])
    assert (unchanged.status, unchanged.body) == (304, b"")


def test_a_cached_answer_needs_read_permission(installation: Installation) -> None:
    made(installation, "cached-secret")
    for _ in range(2):
        installation.call("GET", f"{TASKS}/cached-secret")
    assert hit(installation.call("GET", f"{TASKS}/cached-secret"))
    refused = installation.call("GET", f"{TASKS}/cached-secret", account="stranger")
    assert refused.status == 403
    assert b"cached-secret" not in refused.body.replace(refused.json["instance"].encode(), b"")


def test_clients_read_their_own_writes(installation: Installation) -> None:
    made(installation, "cached-changed")
    path = f"{TASKS}/cached-changed"
    for suspended in [True, False] * 10:
        installation.call("GET", path)
        changed = installation.call(
            "PATCH", path, {"spec": {"suspend": suspended}}, content_type="application/merge-patch+json"
        )
        assert changed.status == 200, changed.body
        assert installation.call("GET", path).json["spec"].get("suspend", False) is suspended


def test_mirrored_changes_are_visible_at_the_next_read(installation: Installation) -> None:
    path = f"{TASKS}?limit=500"
    for number in range(20):
        made(installation, f"cached-{number}")
        installation.call("GET", path)
        installation.mirror()
        assert f"cached-{number}" in {each["name"] for each in installation.call("GET", path).json["items"]}


def test_nothing_is_cached_while_the_history_changes(installation: Installation, admin: redis.Redis) -> None:
    admin.set(version_key(NAMESPACE), "~half")
    for _ in range(3):
        assert not hit(installation.call("GET", f"{TASKS}?limit=2"))
    admin.set(version_key(NAMESPACE), "whole")
    installation.call("GET", f"{TASKS}?limit=2")
    assert hit(installation.call("GET", f"{TASKS}?limit=2"))


def test_without_redis_the_api_reads_from_the_source(installation: Installation, admin: redis.Redis) -> None:
    made(installation, "cached-away")
    path = f"{TASKS}/cached-away"
    admin.client_pause(1500, all=True)
    began = time.monotonic()
    answers = [installation.call("GET", path) for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    assert not any(map(hit, answers))
    assert time.monotonic() - began < 1.5, "each waits for the cache"
    # It is asked again some seconds later; so are the limits, whose Redis it is too.
    again = eventually(
        lambda: installation.call("GET", path), lambda answer: hit(answer) and "RateLimit" in answer.headers, 15
    )
    assert again.body == answers[0].body


async def test_an_answer_read_before_a_change_is_not_valid_after_it(client: redis.asyncio.Redis) -> None:
    cache, marks = ReadCache(PipelinedClient(client, 1.0)), CacheVersions(client)
    await marks.changed(["race"])
    for number in range(50):
        place = await cache.get("race", "q", HISTORY_SECONDS)
        assert isinstance(place, CacheMiss)
        # Read here, and kept after somebody changed it: in either order of the two.
        await asyncio.gather(marks.changed(["race"]), cache.response(place, Said(number=number), {}))
        assert not isinstance(await cache.get("race", "q", HISTORY_SECONDS), CachedAnswer)


async def test_the_time_to_live_starts_before_the_read(client: redis.asyncio.Redis) -> None:
    now = 0.0
    cache = ReadCache(PipelinedClient(client, 1.0), lambda: now)
    await CacheVersions(client).changed(["slow"])
    place = await cache.get("slow", "q", 1.0)
    now = 1.0
    await cache.response(place, Said(number=1), {})
    assert isinstance(await cache.get("slow", "q", 1.0), CacheMiss)


async def test_answers_are_invalid_after_their_version_is_lost(client: redis.asyncio.Redis) -> None:
    cache = ReadCache(PipelinedClient(client, 1.0))
    await CacheVersions(client).changed(["forgot"])
    await cache.response(await cache.get("forgot", "q", HISTORY_SECONDS), Said(number=1), {})
    assert isinstance(await cache.get("forgot", "q", HISTORY_SECONDS), CachedAnswer)
    await client.delete(version_key("forgot"))
    assert await cache.get("forgot", "q", HISTORY_SECONDS) is None
    assert isinstance(await cache.get("forgot", "q", HISTORY_SECONDS), CacheMiss)


async def test_queries_and_namespaces_have_separate_answers(client: redis.asyncio.Redis) -> None:
    cache = ReadCache(PipelinedClient(client, 1.0))
    await CacheVersions(client).changed(["one", "two"])
    await cache.response(await cache.get("one", "q", HISTORY_SECONDS), Said(number=1), {"ETag": '"1"'})
    found = await cache.get("one", "q", HISTORY_SECONDS)
    assert isinstance(found, CachedAnswer)
    assert (found.headers, found.body) == ({"ETag": '"1"'}, '{"number":1}')
    assert isinstance(await cache.get("two", "q", HISTORY_SECONDS), CacheMiss)
    assert isinstance(await cache.get("one", "p", HISTORY_SECONDS), CacheMiss)
