from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from taskflow_core.domain.attempts import Entry, State
from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.connect import CLAIM_SECONDS, TOMBSTONE_SECONDS
from taskflow_core.ledger.worker import Claim, Heartbeat, Holding, WorkerLedger
from taskflow_core.settings import RedisSettings
from tests.builders import UID, make_message
from tests.integration.ledger.builders import (
    DONE,
    KEYS,
    LEASE_MS,
    NAMESPACE,
    NOT_DONE,
    entry,
    epoch,
    key,
    kinds,
    noted,
    noted_kinds,
    now_ms,
    operator,
    told,
    until_lost,
    worker,
)

pytestmark = pytest.mark.integration
PID = 77
MEMBER = f"{UID}:1"
HELD = Holding(MEMBER, PID, make_message().token)
LOST = Failure(reason=Reason.WORKER_LOST, message="signal 9")


def score(raw: redis.Redis, key: str, member: str = MEMBER) -> int | None:
    found: Any = raw.zscore(key, member)
    return None if found is None else int(found)


async def entered(settings: RedisSettings, attempt: int = 1) -> None:
    async with operator(settings) as side:
        (answer,) = await side.ledger.enqueue([entry(attempt)])
        assert answer.entry is Entry.NEW


def claimed(ledger: WorkerLedger, pid: int = PID, attempt: int = 1) -> Claim:
    claim = ledger.claim(ledger.candidate(make_message(attempt=attempt), pid))
    assert claim is not None
    return claim


async def test_entering_is_told_once_and_may_be_repeated(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        (first,) = await side.ledger.enqueue([entry()])
        (second,) = await side.ledger.enqueue([entry()])
    assert (first.entry, second.entry) == (Entry.NEW, Entry.WAITING)
    assert first.time_ms == second.time_ms == score(raw, KEYS.ledger)
    (event,) = noted(raw)
    assert (event.kind, event.attempt, event.payload["name"]) == (EventKind.QUEUED, 1, "report")
    assert event.time_ms == first.time_ms


async def test_entering_again_after_a_loss_has_a_fresh_time_and_no_second_event(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        await side.ledger.enqueue([entry()])
        raw.zadd(KEYS.ledger, {MEMBER: 5})
        (answer,) = await side.ledger.enqueue([entry()], again=True)
        assert answer.entry is Entry.NEW
        assert answer.time_ms == score(raw, KEYS.ledger)
        assert answer.time_ms > 5
    assert noted_kinds(raw) == [EventKind.QUEUED]


async def test_many_attempts_are_answered_in_their_order(settings: RedisSettings) -> None:
    async with operator(settings) as side:
        await side.ledger.enqueue([entry(uid="b")])
        claimed_by = worker(settings)
        assert claimed_by.claim(claimed_by.candidate(make_message(uid="b"), PID))
        await side.ledger.enqueue([entry(uid="c")])
        answers = await side.ledger.enqueue([entry(uid="a"), entry(uid="b"), entry(uid="c")])
    assert [each.entry for each in answers] == [Entry.NEW, Entry.TAKEN, Entry.WAITING]


async def test_one_of_fifty_claimers_wins(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledgers = [worker(settings, f"pod-{number}:x") for number in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda each: each.claim(each.candidate(make_message(), PID)), ledgers))
    (winner,) = [answer for answer in answers if answer is not None]
    assert raw.get(KEYS.claim(UID, 1)) == winner.holder
    assert kinds(raw) == [EventKind.STARTED, *[EventKind.DUPLICATE] * 49]


async def test_a_claim_makes_a_lease_and_leaves_the_ledger(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    raw.set(KEYS.epoch, "e1")
    claim = claimed(worker(settings))
    assert claim.epoch == "e1"
    assert score(raw, KEYS.ledger) is None
    lease = score(raw, KEYS.leases)
    assert lease is not None
    assert 0 <= now_ms(raw) + LEASE_MS - lease < 5000
    ttl: Any = raw.ttl(KEYS.claim(UID, 1))
    assert CLAIM_SECONDS - 60 < ttl <= CLAIM_SECONDS
    event = told(raw)[-1]
    assert (event.kind, event.worker) == (EventKind.STARTED, "pod-1:ab")


async def test_a_claim_whose_answer_was_lost_may_be_repeated(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    candidate = ledger.candidate(make_message(), PID)
    first, second = ledger.claim(candidate), ledger.claim(candidate)
    assert first is not None
    assert first == second
    assert kinds(raw) == [EventKind.STARTED]


async def test_another_delivery_to_the_same_process_is_refused(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claimed(ledger)
    assert ledger.claim(ledger.candidate(make_message(), PID)) is None
    assert kinds(raw)[-1] is EventKind.DUPLICATE


def test_an_attempt_that_was_never_entered_is_refused_and_told(settings: RedisSettings, raw: redis.Redis) -> None:
    ledger = worker(settings)
    assert ledger.claim(ledger.candidate(make_message(), PID)) is None
    (event,) = told(raw)
    assert (event.kind, event.worker) == (EventKind.DUPLICATE, "pod-1:ab")
    assert raw.exists(KEYS.claim(UID, 1)) == 0


async def test_an_end_counts_once_however_often_it_is_reported(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    assert [ledger.finish(claim, EventKind.SUCCEEDED, DONE) for _ in range(3)] == [True] * 3
    assert kinds(raw) == [EventKind.STARTED, EventKind.SUCCEEDED]
    assert told(raw)[-1].payload["result"] == 3
    assert score(raw, KEYS.leases) is None
    ttl: Any = raw.ttl(KEYS.claim(UID, 1))
    assert TOMBSTONE_SECONDS - 60 < ttl <= TOMBSTONE_SECONDS


@pytest.mark.parametrize("by", ["expire", "surrender", "settle", "delete"])
async def test_an_end_does_not_count_after_the_attempt_was_taken_away(
    settings: RedisSettings, raw: redis.Redis, by: str
) -> None:
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    async with operator(settings) as side:
        if by == "expire":
            raw.zadd(KEYS.leases, {MEMBER: 1})
            assert await side.expire() == [MEMBER]
        elif by == "surrender":
            assert ledger.surrender(HELD, EventKind.LOST, LOST)
        else:
            await side.ledger.settle(entry(), EventKind.SETTLED if by == "settle" else EventKind.DELETED)
    assert ledger.finish(claim, EventKind.SUCCEEDED, DONE) is False
    assert kinds(raw)[-1] is EventKind.STALE
    assert score(raw, KEYS.leases) is None


def flush(raw: redis.Redis, epoch: str | None = "e2") -> None:
    raw.flushall()
    if epoch is not None:
        raw.set(KEYS.epoch, epoch)


@pytest.mark.parametrize("epoch", ["e2", None], ids=["a new epoch", "before the new epoch began"])
async def test_an_end_counts_after_redis_lost_its_data(
    settings: RedisSettings, raw: redis.Redis, epoch: str | None
) -> None:
    raw.set(KEYS.epoch, "e1")
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    flush(raw, epoch)
    assert ledger.finish(claim, EventKind.FAILED, NOT_DONE)
    assert ledger.finish(claim, EventKind.FAILED, NOT_DONE)
    (event,) = told(raw)
    assert (event.kind, event.payload["message"]) == (EventKind.FAILED, "no")


async def test_an_end_does_not_count_when_only_its_claim_vanished(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.set(KEYS.epoch, "e1")
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    raw.delete(KEYS.claim(UID, 1))
    assert ledger.finish(claim, EventKind.SUCCEEDED, DONE) is False


async def test_a_heartbeat_renews_the_lease_and_the_claim(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claimed(ledger)
    raw.zadd(KEYS.leases, {MEMBER: 1})
    raw.expire(KEYS.claim(UID, 1), 10)
    assert ledger.heartbeat([HELD], "") == Heartbeat(epoch(raw), ())
    lease = score(raw, KEYS.leases)
    assert lease is not None
    assert lease > now_ms(raw) + LEASE_MS - 5000
    ttl: Any = raw.ttl(KEYS.claim(UID, 1))
    assert ttl > 10


async def test_a_heartbeat_makes_no_lease_where_none_is(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claimed(ledger)
    raw.zrem(KEYS.leases, MEMBER)
    ledger.heartbeat([HELD], "")
    assert score(raw, KEYS.leases) is None


async def test_a_heartbeat_enters_again_what_redis_forgot_and_the_end_counts(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.set(KEYS.epoch, "e1")
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    flush(raw)
    assert ledger.heartbeat([HELD], "e1") == Heartbeat("e2", ())
    assert score(raw, KEYS.leases) is not None
    assert ledger.heartbeat([HELD], "e2") == Heartbeat("e2", ())
    async with operator(settings) as side:
        (answer,) = await side.ledger.enqueue([entry()])
        assert answer.entry is Entry.TAKEN
    assert ledger.finish(claim, EventKind.SUCCEEDED, DONE)


async def test_a_heartbeat_between_delivery_and_claim_does_not_refuse_the_claim(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    # A worker's first heartbeat knows no epoch yet; the pool process took the message and is about to claim it.
    raw.set(KEYS.epoch, "e1")
    await entered(settings)
    ledger = worker(settings)
    ledger.heartbeat([HELD], "")
    claim = ledger.claim(ledger.candidate(make_message(), PID))
    assert claim is not None
    assert ledger.finish(claim, EventKind.SUCCEEDED, DONE)
    assert kinds(raw) == [EventKind.STARTED, EventKind.SUCCEEDED]


async def test_a_heartbeat_enters_nothing_again_within_an_epoch(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.set(KEYS.epoch, "e1")
    ledger = worker(settings)
    assert ledger.heartbeat([HELD], "e1") == Heartbeat("e1", ())
    assert raw.exists(KEYS.claim(UID, 1)) == 0


async def test_a_heartbeat_tells_what_was_taken_away(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claimed(ledger)
    raw.zadd(KEYS.leases, {MEMBER: 1})
    async with operator(settings) as side:
        await side.expire()
    assert ledger.heartbeat([HELD], "").fenced == (MEMBER,)
    assert worker(settings, "pod-2:x").heartbeat([HELD], "").fenced == (MEMBER,)


async def test_a_heartbeat_passes_over_what_ended(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    ledger.finish(claimed(ledger), EventKind.SUCCEEDED, DONE)
    assert ledger.heartbeat([HELD], "").fenced == ()
    assert score(raw, KEYS.leases) is None


def test_a_heartbeat_of_an_idle_worker_learns_the_epoch(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.set(KEYS.epoch, "e1")
    assert worker(settings).heartbeat([], "") == Heartbeat("e1", ())


async def test_a_lease_that_ran_out_is_a_loss_that_names_the_worker(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    claimed(worker(settings, lease_ms=1))
    async with operator(settings) as side:
        until_lost(raw, MEMBER)
        assert await side.expire() == [MEMBER]
        assert await side.expire() == []
    event = told(raw)[-1]
    assert (event.kind, event.uid, event.attempt, event.worker) == (EventKind.LOST, UID, 1, "pod-1:ab")
    assert Failure.model_validate(event.payload).reason is Reason.WORKER_LOST


async def test_a_lease_that_is_renewed_is_no_loss(settings: RedisSettings) -> None:
    await entered(settings)
    claimed(worker(settings))
    async with operator(settings) as side:
        assert await side.expire() == []


async def test_only_who_holds_an_attempt_can_give_it_up(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claimed(ledger)
    assert not worker(settings, "pod-2:x").surrender(HELD, EventKind.RELEASED, LOST)
    assert not ledger.surrender(Holding(MEMBER, PID + 1, HELD.token), EventKind.RELEASED, LOST)
    assert ledger.surrender(HELD, EventKind.RELEASED, LOST)
    assert not ledger.surrender(HELD, EventKind.RELEASED, LOST)
    assert kinds(raw) == [EventKind.STARTED, EventKind.RELEASED]
    assert told(raw)[-1].worker == "pod-1:ab"
    assert score(raw, KEYS.leases) is None


async def test_what_ended_cannot_be_given_up(settings: RedisSettings) -> None:
    await entered(settings)
    ledger = worker(settings)
    ledger.finish(claimed(ledger), EventKind.SUCCEEDED, DONE)
    assert not ledger.surrender(HELD, EventKind.LOST, LOST)


@pytest.mark.parametrize("kind", [EventKind.SETTLED, EventKind.DELETED])
async def test_a_closed_attempt_can_be_neither_entered_nor_claimed(
    settings: RedisSettings, raw: redis.Redis, kind: EventKind
) -> None:
    await entered(settings)
    async with operator(settings) as side:
        await side.ledger.settle(entry(), kind)
        await side.ledger.settle(entry(), kind)
        (answer,) = await side.ledger.enqueue([entry()], again=True)
        assert answer.entry is Entry.TAKEN
        (state,) = await side.ledger.states([key()])
        assert state.settled
    ledger = worker(settings)
    assert ledger.claim(ledger.candidate(make_message(), PID)) is None
    assert noted_kinds(raw) == [EventKind.QUEUED, kind]
    assert kinds(raw) == [EventKind.DUPLICATE]


async def test_a_message_that_was_left_can_be_read_until_its_attempt_is_settled(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    ledger, left = worker(settings), KEYS.once(UID, 1)
    assert ledger.left(left) is None
    await entered(settings)
    async with operator(settings) as side:
        message = make_message(kwargs={"year": 2026})
        await side.ledger.leave(message)
        assert ledger.left(left) == message
        seconds: Any = raw.ttl(left)
        assert 0 < seconds <= CLAIM_SECONDS
        await side.ledger.withdraw(key())
        assert ledger.left(left) == message
        await side.ledger.settle(entry())
    assert ledger.left(left) is None


async def test_states_tell_where_each_attempt_is(settings: RedisSettings) -> None:
    async with operator(settings) as side:
        await side.ledger.enqueue([entry(1), entry(2)])
        claim = claimed(worker(settings))
        assert await side.ledger.states([key(1), key(2), key(3)]) == [
            State(claim.holder, leased=True, waiting=False),
            State("", leased=False, waiting=True),
            State("", leased=False, waiting=False),
        ]
        assert await side.ledger.states([]) == []


async def test_waiting_members_come_oldest_first_within_their_times(settings: RedisSettings, raw: redis.Redis) -> None:
    now = now_ms(raw)
    first, second, third = (now - ago for ago in (90_000, 60_000, 30_000))
    raw.zadd(KEYS.ledger, {"c:1": third, "a:1": first, "b:1:7": second})
    a, b, c = key(uid="a"), key(1, 7, uid="b"), key(uid="c")
    async with operator(settings) as side:

        async def waiting(after_ms: int, grace_ms: int, limit: int) -> object:
            (found,) = await side.ledger.survey({NAMESPACE: after_ms}, grace_ms=grace_ms, limit=limit)
            return list(found.waiting)

        assert await waiting(0, 45_000, 9) == [(a, first), (b, second)]
        assert await waiting(second, 0, 9) == [(b, second), (c, third)]
        assert await waiting(0, 0, 1) == [(a, first)]


async def test_a_note_reaches_the_history(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        await side.ledger.note(entry())
    (event,) = noted(raw)
    assert (event.kind, event.payload["name"]) == (EventKind.PENDING, "report")
