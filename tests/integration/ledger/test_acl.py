"""What Redis lets a worker's user do, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from taskflow_core.broker import acl
from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain import naming
from taskflow_core.domain.events import Advance, EventKind, Stream
from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import NamespaceKeys, keys_of
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.arrays import ArrayKey, ArrayLedger, ChunkEntry
from taskflow_core.ledger.changes import KeyChanges
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.presence import PoolView, Presence, WorkerName
from taskflow_core.ledger.stream import trim_read
from taskflow_core.ledger.worker import Holding
from taskflow_core.settings import RedisSettings
from tests.builders import UID, make_message
from tests.integration.ledger.builders import (
    DONE,
    KEYS,
    NAMESPACE,
    NOT_DONE,
    NOTES,
    WORKERS,
    Operator,
    entry,
    key,
    operator,
    worker,
)
from tests.redis_users import PASSWORD, as_user, as_worker, refused

pytestmark = pytest.mark.integration
OTHERS = naming.broker_list("team-b", "default", 5)
THEIRS = keys_of("team-b")


@pytest.fixture
def own(settings: RedisSettings, raw: redis.Redis) -> RedisSettings:
    return as_worker(settings, raw, "team-a")


@pytest.fixture
def client(own: RedisSettings) -> Iterator[redis.Redis]:
    found = connect_sync(own)
    yield found
    found.connection_pool.disconnect()


async def test_the_operators_and_the_workers_users_go_through_the_protocol(
    settings: RedisSettings, own: RedisSettings, raw: redis.Redis, client: redis.Redis
) -> None:
    operators = as_user(settings, raw, acl.OPERATOR, acl.operator_rules(PASSWORD))
    message: Message = make_message()
    async with operator(operators) as its:
        assert await its.ledger.serve("ns/a") == "ns/a"
        await its.ledger.begin_epoch("first")
        await its.namespaces.load()
        await its.ledger.enqueue([entry()])
        publisher = Publisher(operators)
        publisher.publish([Outgoing(message, 1)])
        publisher.close()
        lists = naming.queue_lists(message.namespace, [message.queue])
        assert any(await its.ledger.oldest_messages(lists))
        assert raw.llen(naming.broker_list(message.namespace, message.queue, message.priority)) == 1
        ledger = worker(own)
        claim = ledger.claim(ledger.candidate(message, 7))
        assert claim is not None
        held = Holding(message.member, 7, message.token)
        assert ledger.heartbeat([held], claim.epoch).fenced == ()
        await its.ledger.request_stop(key(), Reason.CANCELLED)
        assert ledger.heartbeat([held], claim.epoch).stops == {message.member: Reason.CANCELLED}
        ledger.advance(claim, Advance(checkpoint="1"))
        assert ledger.finish(claim, EventKind.SUCCEEDED, DONE)
        presence = Presence(client, "pod-1", "team-a", ["default"], 1)
        assert presence.report(busy=0, serving=True, claimed_ago_ms=None) is False
        await _look_after_pools(its)
        presence.leave()
        await its.ledger.settle(entry())
        reader = its.reader("pg")
        reads = await reader.read(reader.streams_of(NAMESPACE))
        assert [len(read.events) for read in reads] == [3, 2]
        await reader.acknowledge(event.entry for read in reads for event in read.events)
    assert refused(raw) == []


async def _look_after_pools(its: Operator) -> None:
    view, one = PoolView(its.client), WorkerName(NAMESPACE, "pod-1")
    assert set((await view.snapshot([NAMESPACE], ["team-a.default"])).reports) == {one}
    await view.stop_intake([one])
    await view.resume_intake([one])
    await view.forget([WorkerName(NAMESPACE, "pod-2")])


async def test_the_operators_and_the_workers_users_go_through_losses(
    settings: RedisSettings, own: RedisSettings, raw: redis.Redis
) -> None:
    operators = as_user(settings, raw, acl.OPERATOR, acl.operator_rules(PASSWORD))
    async with operator(operators) as its:
        await its.namespaces.ensure([NAMESPACE, "team-b"])
        await its.namespaces.data_lost([NAMESPACE])
        await its.namespaces.trimmed(NAMESPACE, unapplied=True)
        await its.namespaces.mirrored(its.namespaces.marks_of([NAMESPACE]))
        await its.ledger.enqueue([entry(1), entry(2), entry(3)])
        assert await its.ledger.withdraw(key(1))
        for attempt in (2, 3):
            ledger = worker(own, lease_ms=1)
            assert ledger.claim(ledger.candidate(make_message(attempt=attempt), 7))
        held = Holding(f"{UID}:3", 7, make_message(attempt=3).token)
        assert ledger.surrender(held, EventKind.LOST, NOT_DONE)
        raw.zadd(KEYS.leases, {f"{UID}:2": 1, "of nobody": 1, "x" * 1000: 1})
        assert await its.expire() == [f"{UID}:2"]
        assert await its.ledger.give_up([key(4)], NOT_DONE) == [True]
        await its.ledger.leave(make_message(attempt=2))
        assert ledger.left(KEYS.once(UID, 2)) is not None
        assert len(await its.ledger.states([key(2)])) == 1
        await its.ledger.note(entry(5))
        now_ms = await its.ledger.now_ms()
        for group in ("cr", "pg"):
            standings = await its.reader(group).look([NAMESPACE, "team-b"], now_ms, sizes=True)
            assert [each.problem for each in standings] == [""] * len(standings)
        await trim_read(its.client, [WORKERS, NOTES], now_ms)
        arrays, array = ArrayLedger(its.client, its.namespaces), ArrayKey(NAMESPACE, UID)
        await arrays.enqueue(array, [ChunkEntry(1, 0, "[]")], "[]")
        await arrays.note(array, {"waiting": "[]"})
        assert await arrays.noted(array)
        await arrays.settle(array, [(1, 0)], "[]")
        await arrays.forget(array)
        await its.namespaces.reset(NAMESPACE)
    assert refused(raw) == []


async def test_the_operators_user_hears_of_changes(settings: RedisSettings, raw: redis.Redis) -> None:
    operators = as_user(settings, raw, acl.OPERATOR, acl.operator_rules(PASSWORD))
    async with operator(operators) as its:
        heard = asyncio.Event()
        changes = KeyChanges(its.client, lambda _: heard.set())
        changes.watch([KEYS.events])
        listening = asyncio.create_task(changes.run())
        async with asyncio.timeout(5):
            await heard.wait()
            heard.clear()
            raw.xadd(KEYS.events, {"k": "x"})
            await heard.wait()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
    assert refused(raw) == []


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("CLIENT", "TRACKING", "ON"),
        ("CLIENT", "TRACKING", "ON", "BCAST"),
        ("MONITOR",),
        ("SUBSCRIBE", "x"),
        ("FUNCTION", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("BRPOP", OTHERS, "1"),
        ("LPUSH", OTHERS, "x"),
        ("LLEN", OTHERS),
        ("RPUSH", "team-ab.default", "x"),
        ("HGET", THEIRS.unacked.messages, "x"),
        ("XRANGE", KEYS.events, "-", "+"),
        ("DEL", KEYS.events),
        ("SET", KEYS.epoch, "x"),
        ("SET", naming.KEY_EPOCH, "x"),
        ("ZADD", KEYS.ledger, "1", "x:1"),
        ("ZRANGE", KEYS.ledger, "0", "-1"),
        ("HSET", KEYS.stops, "x:1", "x"),
        ("HGETALL", KEYS.workers),
        ("EVAL", "return 1", "0"),
        ("SCRIPT", "LOAD", "while true do end"),
        ("SCRIPT", "EXISTS", "0" * 40),
        ("FUNCTION", "LOAD", "#!lua name=x"),
    ],
)
def test_a_worker_is_refused_what_is_not_its_own(client: Any, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command)


def _common(name: str) -> list[tuple[str, ...]]:
    """Commands on strings, lists and keys of any type."""
    return [
        ("GET", name),
        ("GETRANGE", name, "0", "1"),
        ("SET", name, "x"),
        ("APPEND", name, "x"),
        ("SETRANGE", name, "536870911", "x"),
        ("INCR", name),
        ("DEL", name),
        ("UNLINK", name),
        ("EXISTS", name),
        ("TYPE", name),
        ("EXPIRE", name, "1"),
        ("PERSIST", name),
        ("TTL", name),
        ("DUMP", name),
        ("RESTORE", name, "0", "x"),
        ("RENAME", name, "team-a.x"),
        ("RENAME", "team-a.x", name),
        ("COPY", name, "team-a.x"),
        ("COPY", "team-a.x", name),
        ("MIGRATE", "h", "1", name, "0", "1"),
        ("SORT", name),
        ("SORT", "team-a.x", "STORE", name),
        ("OBJECT", "ENCODING", name),
        ("MEMORY", "USAGE", name),
        ("WATCH", name),
        ("HGET", name, "x"),
        ("HSET", name, "x", "x"),
        ("HDEL", name, "x"),
        ("HGETALL", name),
        ("HLEN", name),
        ("ZADD", name, "1", "x"),
        ("ZREM", name, "x"),
        ("ZSCORE", name, "x"),
        ("ZRANGE", name, "0", "-1"),
    ]


def _others(name: str) -> list[tuple[str, ...]]:
    """Commands on the other types."""
    return [
        ("ZCARD", name),
        ("ZUNIONSTORE", name, "1", "team-a.x"),
        ("SADD", name, "x"),
        ("SMEMBERS", name),
        ("LPUSH", name, "x"),
        ("RPUSH", name, "x"),
        ("LLEN", name),
        ("LINDEX", name, "0"),
        ("LRANGE", name, "0", "-1"),
        ("BRPOP", name, "1"),
        ("LMOVE", name, "team-a.x", "LEFT", "LEFT"),
        ("LMOVE", "team-a.x", name, "LEFT", "LEFT"),
        ("XADD", name, "*", "k", "x"),
        ("XADD", name, "18446744073709551615-18446744073709551615", "k", "x"),
        ("XADD", name, "MAXLEN", "0", "*", "k", "x"),
        ("XDEL", name, "1-1"),
        ("XTRIM", name, "MAXLEN", "0"),
        ("XSETID", name, "9-9"),
        ("XRANGE", name, "-", "+"),
        ("XREAD", "STREAMS", name, "0"),
        ("XLEN", name),
        ("XINFO", "STREAM", name),
        ("XGROUP", "DESTROY", name, "cr"),
        ("XREADGROUP", "GROUP", "cr", "cr", "STREAMS", name, ">"),
        ("XACK", name, "cr", "1-1"),
        ("XCLAIM", name, "cr", "x", "0", "1-1"),
        ("SETBIT", name, "1", "1"),
        ("PFADD", name, "x"),
        ("PFCOUNT", name),
        ("GEOADD", name, "1", "1", "x"),
        ("EVALSHA", "0" * 40, "1", name),
        ("EVALSHA_RO", "0" * 40, "1", name),
        ("EVAL", "return 1", "1", name),
        ("FCALL", "x", "1", name),
    ]


def commands(name: str) -> list[tuple[str, ...]]:
    """Commands of all kinds on one key."""
    return [*_common(name), *_others(name)]


def names(keys: NamespaceKeys) -> list[str]:
    """All keys of a namespace."""
    return [
        keys.epoch,
        keys.ledger,
        keys.leases,
        keys.events,
        keys.notes,
        keys.unmirrored,
        keys.stops,
        keys.workers,
        keys.intake,
        keys.claim(UID, 1),
        keys.once(UID, 1),
        keys.array(UID),
        keys.unacked.messages,
        keys.unacked.index,
        keys.unacked.mutex,
    ]


def allowed(raw: Any, user: str, found: Sequence[tuple[str, ...]]) -> list[str]:
    """Which of these commands the user may run; none of them is."""
    answers = [(each, raw.execute_command("ACL", "DRYRUN", user, *each)) for each in found]
    assert all(answer == "OK" or "has no permissions" in answer for _, answer in answers), answers
    return [" ".join(each) for each, answer in answers if answer == "OK"]


USER = acl.worker_user("team-a")


@pytest.mark.parametrize("namespace", ["team-b", "team-ab", "team", "team-a}x", "*"])
def test_a_worker_is_refused_on_every_key_of_another_namespace(
    own: RedisSettings, raw: redis.Redis, namespace: str
) -> None:
    for name in names(keys_of(namespace)):
        assert allowed(raw, USER, commands(name)) == []
    for name in naming.queue_lists(namespace, ["default"]):
        assert allowed(raw, USER, commands(name)) == []


@pytest.mark.parametrize(
    "name",
    [
        naming.KEY_EPOCH,
        naming.KEY_OPERATOR,
        naming.KEY_NAMESPACES,
        "tf:ev",
        "tf:led",
        "tf:lease",
        "tfapi:mark:team-a",
        "tfapi:x",
        "celery",
        "unacked",
    ],
)
def test_a_worker_is_refused_on_every_key_that_is_no_namespaces(
    own: RedisSettings, raw: redis.Redis, name: str
) -> None:
    assert allowed(raw, USER, commands(name)) == []


def test_on_its_own_keys_a_worker_may_do_what_it_needs_and_nothing_else(own: RedisSettings, raw: redis.Redis) -> None:
    script = {"EVALSHA", "EVALSHA_RO"}
    for name, wanted in {
        KEYS.notes: set(),
        KEYS.unmirrored: set(),
        KEYS.array(UID): set(),
        KEYS.epoch: {"GET"},
        KEYS.ledger: {"ZREM"},
        KEYS.leases: {"ZADD", "ZREM"},
        KEYS.events: {"XADD"},
        KEYS.stops: {"HGET"},
        KEYS.workers: {"HSET", "HDEL"},
        KEYS.intake: {"HGET"},
        KEYS.claim(UID, 1): {"GET", "SET", "EXPIRE"},
        KEYS.once(UID, 1): {"GET"},
        KEYS.unacked.messages: {"HGET", "HSET", "HDEL", "WATCH"},
        KEYS.unacked.index: {"ZADD", "ZREM", "ZRANGE"},
        KEYS.unacked.mutex: {"GET", "SET", "DEL"},
    }.items():
        found = {each.split()[0] for each in allowed(raw, USER, commands(name))}
        assert found - script == wanted, name
    # A script is looked at again with each of its commands.
    for name in (KEYS.notes, KEYS.unmirrored, KEYS.array(UID)):
        assert allowed(raw, USER, commands(name)) == []


def test_a_worker_cannot_name_keys_of_two_namespaces_in_one_script(own: RedisSettings, raw: redis.Redis) -> None:
    both = [("EVALSHA", "0" * 40, "2", KEYS.leases, THEIRS.leases), ("EVALSHA", "0" * 40, "2", KEYS.events, KEYS.notes)]
    assert allowed(raw, USER, both) == []


async def test_what_a_worker_says_of_another_namespaces_attempt_is_in_its_own_stream_and_not_believed(
    settings: RedisSettings, own: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as its:
        await its.namespaces.ensure([NAMESPACE, "team-b"])
        token = naming.attempt_token("another key", "team-b", UID, 1)
        ledger = worker(own)
        ledger.claim(ledger.candidate(make_message(namespace="team-b", token=token), 7))
        (read, there) = await its.reader().read([WORKERS, Stream("team-b", WORKERS.origin)])
    assert (read.events, [each.reason for each in read.refused]) == ((), ["token"])
    assert (there.events, there.refused) == ((), ())
