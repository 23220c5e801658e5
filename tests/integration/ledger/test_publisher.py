from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain import naming
from taskflow_core.domain.message import HEADER_ENTERED, Message, entered_ms
from taskflow_core.domain.naming import queue_lists
from taskflow_core.settings import RedisSettings
from tests.builders import UID, make_message
from tests.integration.ledger.builders import operator

pytestmark = pytest.mark.integration


@pytest.fixture
def publisher(settings: RedisSettings) -> Iterator[Publisher]:
    made = Publisher(settings)
    yield made
    made.close()


def waiting(raw: redis.Redis, key: str) -> list[dict[str, Any]]:
    rows: Any = raw.lrange(key, 0, -1)
    return [json.loads(row) for row in reversed(rows)]


def test_what_arrives_is_the_message_with_our_header(publisher: Publisher, raw: redis.Redis) -> None:
    message = make_message(args=[1, None], kwargs={"k": "é"})
    publisher.publish([Outgoing(message, 1_700_000_000_123)])
    (found,) = waiting(raw, naming.broker_list("team-a", "default", 0))
    assert found["headers"][HEADER_ENTERED] == 1_700_000_000_123
    assert (found["headers"]["task"], found["headers"]["id"]) == (naming.CELERY_TASK, f"{UID}:1")
    assert found["content-type"] == "application/json"
    (payload,), kwargs, _ = json.loads(base64.b64decode(found["body"]))
    assert kwargs == {}
    assert Message.model_validate(payload) == message


def test_no_argument_shows_in_what_celery_logs(publisher: Publisher, raw: redis.Redis) -> None:
    publisher.publish([Outgoing(make_message(args=["private"]), 1)])
    (found,) = waiting(raw, naming.broker_list("team-a", "default", 0))
    assert "private" not in json.dumps(found["headers"])


@pytest.mark.parametrize("priority", range(10))
def test_a_priority_lands_in_its_own_list(publisher: Publisher, raw: redis.Redis, priority: int) -> None:
    publisher.publish([Outgoing(make_message(priority=priority), 1)])
    found = set(raw.scan_iter(_type="list"))
    assert found == {naming.broker_list("team-a", "default", priority)}


async def test_the_reconciler_can_read_what_is_served_next(publisher: Publisher, settings: RedisSettings) -> None:
    publisher.publish([Outgoing(make_message(uid=str(number)), 100 + number) for number in range(3)])
    lists = queue_lists("team-a", ["default", "other"])
    async with operator(settings) as side:
        heads = dict(zip(lists, await side.ledger.oldest_messages(lists), strict=True))
    mine = naming.broker_list("team-a", "default", 0)
    assert entered_ms(heads.pop(mine)) == 100
    assert set(heads.values()) == {None}


def test_a_batch_keeps_its_order(publisher: Publisher, raw: redis.Redis) -> None:
    publisher.publish([Outgoing(make_message(uid=f"{number:04}"), number) for number in range(1200)])
    found = waiting(raw, naming.broker_list("team-a", "default", 0))
    assert [each["headers"]["id"] for each in found] == [f"{number:04}:1" for number in range(1200)]


def test_a_message_arrives_after_redis_lost_its_data(publisher: Publisher, raw: redis.Redis) -> None:
    publisher.publish([Outgoing(make_message(), 1)])
    raw.flushall()
    publisher.publish([Outgoing(make_message(attempt=2), 2)])
    (found,) = waiting(raw, naming.broker_list("team-a", "default", 0))
    assert found["headers"]["id"] == f"{UID}:2"


async def test_a_message_that_is_none_of_ours_is_served_next_and_costs_nothing(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.rpush("team-a.huge", b"x" * 8_000_000)
    raw.rpush("team-a.bytes", b"\xff\xfe")
    raw.rpush("team-a.deep", b"[" * 100_000)
    raw.rpush("team-a.number", f'{{"headers": {{"{HEADER_ENTERED}": 1e999}}}}')
    raw.set("team-a.type", "x")
    lists = [f"team-a.{name}" for name in ("huge", "bytes", "type", "none", "deep", "number")]
    async with operator(settings) as side:
        heads = await side.ledger.oldest_messages(lists)
    assert heads[:4] == ["", "\udcff\udcfe", "", None]
    assert [entered_ms(each) for each in heads] == [None] * 6
