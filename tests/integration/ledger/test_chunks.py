"""A chunk of an array is an attempt with a suffix: the same scripts, and what is in flight noted in the same steps."""

from __future__ import annotations

import pytest
import redis

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import Entry
from taskflow_core.domain.chunks import Chunk, ChunkEnd
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.arrays import ArrayKey, ArrayLedger, ChunkEntry
from taskflow_core.ledger.worker import Holding
from taskflow_core.settings import RedisSettings
from tests.builders import TOKEN_KEY, UID, make_message
from tests.integration.ledger.builders import (
    KEYS,
    NAMESPACE,
    NOT_DONE,
    key,
    kinds,
    noted,
    operator,
    told,
    until_lost,
    worker,
)

pytestmark = pytest.mark.integration
FIRST = 1000
CHUNK = ChunkEntry(2, FIRST, '[0, "1000-1999"]')
ARRAY = ArrayKey(NAMESPACE, UID)


def message() -> Message:
    token = naming.attempt_token(TOKEN_KEY, NAMESPACE, UID, 2, FIRST)
    return make_message(attempt=2, token=token, chunk=Chunk(first=FIRST, items="1000-1999"))


async def test_it_is_noted_entered_claimed_finished_and_settled(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        arrays = ArrayLedger(side.client, side.namespaces)
        (entered,) = await arrays.enqueue(ARRAY, [CHUNK], "[1]")
        assert entered.entry is Entry.NEW
        assert raw.zrange(KEYS.ledger, 0, -1) == [f"{UID}:2:1000"]
        assert await arrays.noted(ARRAY) == {"2:1000": CHUNK.note, "waiting": "[1]"}
        ledger = worker(settings)
        claim = ledger.claim(ledger.candidate(message(), 7))
        assert claim is not None
        assert ledger.claim(ledger.candidate(message(), 8)) is None
        assert (await arrays.enqueue(ARRAY, [CHUNK], "[1]"))[0].entry is Entry.TAKEN
        assert ledger.heartbeat([Holding(f"{UID}:2:1000", 7)], "").fenced == ()
        assert ledger.finish(claim, EventKind.SUCCEEDED, ChunkEnd(ok="1000-1999", ran=1000))
        await arrays.settle(ARRAY, [(2, FIRST)], "[2]")
        assert await arrays.noted(ARRAY) == {"waiting": "[2]"}
        (state,) = await side.ledger.states([key(2, FIRST)])
        assert (state.settled, state.leased, state.waiting) == (True, False, False)
        await arrays.forget(ARRAY)
    assert noted(raw) == []
    # Neither entering nor settling a chunk is an event.
    assert kinds(raw) == [EventKind.STARTED, EventKind.DUPLICATE, EventKind.SUCCEEDED]
    assert {(event.uid, event.attempt, event.chunk) for event in told(raw)} == {(UID, 2, FIRST)}
    assert raw.exists(KEYS.array(UID)) == 0


async def test_its_lease_runs_out_and_its_late_end_is_refused(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        await ArrayLedger(side.client, side.namespaces).enqueue(ARRAY, [CHUNK], "[]")
        ledger = worker(settings, lease_ms=50)
        claim = ledger.claim(ledger.candidate(message(), 7))
        assert claim is not None
        until_lost(raw, f"{UID}:2:1000")
        assert await side.expire() == [f"{UID}:2:1000"]
        assert not ledger.finish(claim, EventKind.SUCCEEDED, ChunkEnd(ok="1000-1999"))
    lost = told(raw)[-2]
    assert (lost.kind, lost.uid, lost.attempt, lost.chunk) == (EventKind.LOST, UID, 2, FIRST)
    assert kinds(raw)[-1] is EventKind.STALE


async def test_it_is_withdrawn_stopped_surrendered_and_given_up_by_its_whole_name(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        arrays = ArrayLedger(side.client, side.namespaces)
        await arrays.enqueue(ARRAY, [CHUNK, ChunkEntry(2, 1, '[0, "1"]')], "[]")
        assert await side.ledger.withdraw(key(2, 1))
        assert raw.zrange(KEYS.ledger, 0, -1) == [f"{UID}:2:1000"]
        ledger = worker(settings)
        claim = ledger.claim(ledger.candidate(message(), 7))
        assert claim is not None
        await side.ledger.request_stop(key(2, FIRST), Reason.CANCELLED)
        held = Holding(f"{UID}:2:1000", 7, claim.message.token)
        assert dict(ledger.heartbeat([held], "").stops) == {f"{UID}:2:1000": Reason.CANCELLED}
        assert await side.ledger.give_up([key(2, FIRST), key(2, 1)], NOT_DONE) == [False, True]
        assert ledger.surrender(held, EventKind.LOST, NOT_DONE)
        await arrays.settle(ARRAY, [(2, FIRST)], "[]")
        assert raw.hlen(KEYS.stops) == 0
    assert [(event.kind, event.chunk) for event in told(raw)] == [
        (EventKind.STARTED, FIRST),
        (EventKind.LOST, 1),
        (EventKind.LOST, FIRST),
    ]
