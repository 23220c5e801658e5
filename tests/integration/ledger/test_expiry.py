"""Leases that ran out, among names that a hostile worker entered."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.operator import EXPIRE_LIMIT, MAX_CLAIM_CHARS
from taskflow_core.settings import RedisSettings
from tests.builders import UID
from tests.integration.ledger.builders import KEYS, NAMESPACE, key, kinds, operator, told

pytestmark = pytest.mark.integration
HOSTILE: dict[str, bytes] = {
    "no colon": b"nothing",
    "nothing": b"",
    "no uid": b":1",
    "no attempt": b"u:",
    "attempt zero": b"u:0",
    "a negative attempt": b"u:-1",
    "a huge attempt": b"u:99999999999999999999",
    "not UTF-8": b"\xff\xfe:1",
    "other digits": "u:\u0663".encode(),
    "a line break": b"u:1\n",
    "long": b"u" * 1_000_000 + b":1",
    "a script's marks": b"'] = redis.call(:1",
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_name_of_no_attempt_is_removed_and_hides_no_loss(
    settings: RedisSettings, raw: redis.Redis, case: str
) -> None:
    names: Any = {HOSTILE[case]: 1, f"{UID}:1": 2}
    raw.zadd(KEYS.leases, names)
    async with operator(settings) as side:
        assert await side.expire() == [f"{UID}:1"]
        assert await side.expire() == []
    assert raw.zcard(KEYS.leases) == 0
    assert kinds(raw) == [EventKind.LOST]
    assert list(raw.scan_iter(f"{KEYS.claim_prefix}*")) == [KEYS.claim(UID, 1)]


async def test_more_names_than_one_look_takes_hide_a_loss_only_for_some_looks(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.zadd(KEYS.leases, {f"x{number}": 1 for number in range(3 * EXPIRE_LIMIT)})
    raw.zadd(KEYS.leases, {f"{UID}:1": 2})
    async with operator(settings) as side:
        found = [await side.expire() for _ in range(4)]
    assert found == [[], [], [], [f"{UID}:1"]]


async def test_a_lease_that_was_renewed_between_look_and_loss_is_none(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.zadd(KEYS.leases, {f"{UID}:1": 1, f"{UID}:2": 1})
    async with operator(settings) as side:
        (found,) = await side.ledger.survey({NAMESPACE: 0}, grace_ms=0, limit=9)
        assert set(found.expired) == {key(1), key(2)}
        raw.zadd(KEYS.leases, {f"{UID}:1": found.now_ms + 60_000})
        assert await side.ledger.expire(found.expired) == [key(2)]
    assert raw.zrange(KEYS.leases, 0, -1) == [f"{UID}:1"]


async def test_a_uid_of_another_namespace_is_taken_away_without_an_event(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.zadd(KEYS.leases, {f"{UID}:1": 1})
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        # The reconciler knows whose Task it is.
        assert await side.ledger.expire([], [(NAMESPACE, f"{UID}:1")]) == []
    assert raw.zcard(KEYS.leases) == raw.xlen(KEYS.events) == raw.xlen(keys_of("team-b").events) == 0


async def test_each_namespace_loses_its_own(settings: RedisSettings, raw: redis.Redis) -> None:
    other = keys_of("team-b")
    raw.zadd(KEYS.leases, {f"{UID}:1": 1})
    raw.zadd(other.leases, {f"{UID}:1": 1, f"{UID}:2": 1})
    raw.set(keys_of("team-c").leases, "of another type")
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b", "team-c"])
        names = dict.fromkeys([NAMESPACE, "team-b", "team-c"], 0)
        surveys = await side.ledger.survey(names, grace_ms=0, limit=9)
        assert [bool(each.problem) for each in surveys] == [False, False, True]
        lost = await side.ledger.expire([each for survey in surveys for each in survey.expired])
    assert set(lost) == {key(), key(namespace="team-b"), key(2, namespace="team-b")}
    assert (raw.xlen(KEYS.events), raw.xlen(other.events)) == (1, 2)


async def test_a_claim_of_any_bytes_makes_a_loss_that_can_be_read(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.set(KEYS.claim(UID, 1), b"pod-1|7|" + b"\xff" * 8_000_000)
    raw.zadd(KEYS.leases, {f"{UID}:1": 1})
    async with operator(settings) as side:
        assert await side.expire() == [f"{UID}:1"]
        (state,) = await side.ledger.states([key()])
    (event,) = told(raw)
    assert (event.kind, event.worker) == (EventKind.LOST, "pod-1")
    assert Failure.model_validate(event.payload).reason is Reason.WORKER_LOST
    assert int(str(raw.strlen(KEYS.claim(UID, 1)))) < 600
    assert len(state.claim) <= MAX_CLAIM_CHARS + 1


@pytest.mark.parametrize("claim", [b"\xff\xfe|1|x", b"w" * 600, b"a worker|1|x", b"\n|1|x"])
async def test_a_claim_that_names_no_worker_does_not_keep_the_loss_from_being_read(
    settings: RedisSettings, raw: redis.Redis, claim: bytes
) -> None:
    raw.set(KEYS.claim(UID, 1), claim)
    raw.zadd(KEYS.leases, {f"{UID}:1": 1})
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        assert await side.expire() == [f"{UID}:1"]
    (event,) = told(raw)
    assert event.kind is EventKind.LOST


async def test_scores_that_are_no_times_are_told_as_they_are(settings: RedisSettings, raw: redis.Redis) -> None:
    scores: Any = {"a:1": "-inf", "b:1": -5, "c:1": "+inf", "d:1": 1e300, "e:1": 0.5}
    raw.zadd(KEYS.leases, scores)
    async with operator(settings) as side:
        assert sorted(await side.expire()) == ["a:1", "b:1", "e:1"]
    assert sorted(str(each) for each in raw.zrange(KEYS.leases, 0, -1)) == ["c:1", "d:1"]


async def test_what_a_dead_worker_holds_is_lost_before_its_lease_runs_out(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    late: Any = {f"{UID}:1": 9e15, f"{UID}:2": "+inf", f"{UID}:3": 9e15, "nobody": 9e15, f"{UID}:4": 9e15}
    raw.zadd(KEYS.leases, late)
    raw.set(KEYS.claim(UID, 1), "pod-1:aa|7|x")
    raw.set(KEYS.claim(UID, 2), b"pod-1:bb|7|\xff")
    raw.set(KEYS.claim(UID, 3), "pod-10:aa|7|x")
    raw.hset(KEYS.claim(UID, 4), "of another", "type")
    failure = Failure(reason=Reason.OUT_OF_MEMORY, message="killed", beside=1)
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE])
        held = await side.ledger.held(NAMESPACE, "pod-1", limit=100)
        assert sorted((each.key, each.worker) for each in held) == [(key(1), "pod-1:aa"), (key(2), "pod-1:bb")]
        holders = {each.key: each.claim for each in held}
        assert await side.expire() == []
        lost = await side.ledger.expire(list(holders), failures={key(1): failure}, holders=holders)
        assert set(lost) == {key(1), key(2)}
        assert await side.ledger.held(NAMESPACE, "pod-1", limit=100) == []
    first, second = told(raw)
    assert Failure.model_validate(first.payload) == failure
    assert Failure.model_validate(second.payload).reason is Reason.WORKER_LOST
    assert (first.kind, first.worker, second.worker) == (EventKind.LOST, "pod-1:aa", "pod-1:bb")


async def test_an_attempt_that_another_worker_holds_meanwhile_is_not_lost(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.zadd(KEYS.leases, {f"{UID}:1": 9e15})
    raw.set(KEYS.claim(UID, 1), "pod-1:cc|8|y")
    async with operator(settings) as side:
        assert await side.ledger.expire([key()], holders={key(): "pod-1:aa|7|x"}) == []
        raw.zrem(KEYS.leases, f"{UID}:1")
        assert await side.ledger.expire([key()], holders={key(): "pod-1:cc|8|y"}) == [], "nobody holds it"
