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
from taskflow_core.ledger.arrays import ArrayLedger, ChunkEntry
from taskflow_core.ledger.worker import Holding
from taskflow_core.settings import RedisSettings
from tests.builders import UID, make_message
from tests.integration.ledger.builders import NOT_DONE, kinds, operator, told, until_lost, worker

pytestmark = pytest.mark.integration
FIRST = 1000
CHUNK = ChunkEntry(2, FIRST, '[0, "1000-1999"]')
KEY = naming.array_key(UID)


def message() -> Message:
    return make_message(attempt=2, chunk=Chunk(first=FIRST, items="1000-1999"))


async def test_it_is_noted_entered_claimed_finished_and_settled(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        arrays = ArrayLedger(side.client)
        (entered,) = await arrays.enqueue(UID, [CHUNK], "[1]")
        assert entered.entry is Entry.NEW
        assert raw.zrange(naming.KEY_LEDGER, 0, -1) == [f"{UID}:2:1000"]
        assert await arrays.noted(UID) == {"2:1000": CHUNK.note, "waiting": "[1]"}
        ledger = worker(settings)
        claim = ledger.claim(ledger.candidate(message(), 7))
        assert claim is not None
        assert ledger.claim(ledger.candidate(message(), 8)) is None
        assert (await arrays.enqueue(UID, [CHUNK], "[1]"))[0].entry is Entry.TAKEN
        assert ledger.heartbeat([Holding(f"{UID}:2:1000", 7)], "").fenced == ()
        assert ledger.finish(claim, EventKind.SUCCEEDED, ChunkEnd(ok="1000-1999", ran=1000))
        await arrays.settle(UID, [(2, FIRST)], "[2]")
        assert await arrays.noted(UID) == {"waiting": "[2]"}
        (state,) = await side.ledger.states([(UID, 2, FIRST)])
        assert (state.settled, state.leased, state.waiting) == (True, False, False)
        await arrays.forget(UID)
    # Neither entering nor settling a chunk is an event.
    assert kinds(raw) == [EventKind.STARTED, EventKind.DUPLICATE, EventKind.SUCCEEDED]
    assert {(event.uid, event.attempt, event.chunk) for event in told(raw)} == {(UID, 2, FIRST)}
    assert raw.exists(KEY) == 0


async def test_its_lease_runs_out_and_its_late_end_is_refused(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        await ArrayLedger(side.client).enqueue(UID, [CHUNK], "[]")
        ledger = worker(settings, lease_ms=50)
        claim = ledger.claim(ledger.candidate(message(), 7))
        assert claim is not None
        until_lost(raw, f"{UID}:2:1000")
        assert await side.ledger.expire() == [f"{UID}:2:1000"]
        assert not ledger.finish(claim, EventKind.SUCCEEDED, ChunkEnd(ok="1000-1999"))
    lost = told(raw)[-2]
    assert (lost.kind, lost.uid, lost.attempt, lost.chunk) == (EventKind.LOST, UID, 2, FIRST)
    assert kinds(raw)[-1] is EventKind.STALE


async def test_it_is_withdrawn_stopped_surrendered_and_given_up_by_its_whole_name(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        arrays = ArrayLedger(side.client)
        await arrays.enqueue(UID, [CHUNK, ChunkEntry(2, 1, '[0, "1"]')], "[]")
        assert await side.ledger.withdraw(UID, 2, 1)
        assert raw.zrange(naming.KEY_LEDGER, 0, -1) == [f"{UID}:2:1000"]
        ledger = worker(settings)
        claim = ledger.claim(ledger.candidate(message(), 7))
        assert claim is not None
        await side.ledger.request_stop(UID, 2, Reason.CANCELLED, FIRST)
        held = Holding(f"{UID}:2:1000", 7, claim.message.token)
        assert dict(ledger.heartbeat([held], "").stops) == {f"{UID}:2:1000": Reason.CANCELLED}
        assert await side.ledger.give_up([(UID, 2, FIRST), (UID, 2, 1)], NOT_DONE) == [False, True]
        assert ledger.surrender(held, EventKind.LOST, NOT_DONE)
        await arrays.settle(UID, [(2, FIRST)], "[]")
        assert raw.hlen(naming.KEY_STOPS) == 0
    assert [(event.kind, event.chunk) for event in told(raw)] == [
        (EventKind.STARTED, FIRST),
        (EventKind.LOST, 1),
        (EventKind.LOST, FIRST),
    ]
