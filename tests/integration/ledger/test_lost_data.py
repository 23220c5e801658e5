"""After lost data: what the model of tests/model found, on the real scripts."""

from __future__ import annotations

import pytest
import redis

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.worker import Claim, Holding, WorkerLedger
from taskflow_core.settings import RedisSettings
from tests.builders import UID, make_message
from tests.integration.ledger.builders import DONE, KEYS, NAMESPACE, entry, key, kinds, operator, worker

pytestmark = pytest.mark.integration
PID = 77
HELD = Holding(f"{UID}:1", PID)
LOST = Failure(reason=Reason.BROKER_DATA_LOST, message="nowhere")


async def entered(settings: RedisSettings) -> None:
    async with operator(settings) as side:
        await side.ledger.enqueue([entry()])


def claimed(ledger: WorkerLedger) -> Claim:
    claim = ledger.claim(ledger.candidate(make_message(), PID))
    assert claim is not None
    return claim


async def test_an_attempt_that_is_nowhere_is_given_up_and_its_late_end_is_refused(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    raw.set(KEYS.epoch, "e1")
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    async with operator(settings) as side:
        assert await side.ledger.give_up([key()], LOST) == [False]
        raw.flushall()
        assert await side.ledger.give_up([key()], LOST) == [True]
    assert not ledger.finish(claim, EventKind.SUCCEEDED, DONE)
    assert kinds(raw) == [EventKind.LOST, EventKind.STALE]


async def test_an_end_that_was_not_read_yet_stays_before_the_loss(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    ledger = worker(settings)
    claim = claimed(ledger)
    assert ledger.finish(claim, EventKind.SUCCEEDED, DONE)
    async with operator(settings) as side:
        assert await side.ledger.give_up([key()], LOST) == [True]
    assert kinds(raw)[-2:] == [EventKind.SUCCEEDED, EventKind.LOST]
    assert ledger.finish(claim, EventKind.SUCCEEDED, DONE), "asked again it is still the end that counts"


async def test_what_was_entered_anew_while_its_worker_came_back_is_not_withdrawn(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    await entered(settings)
    worker(settings).heartbeat([HELD], "another life")
    raw.set(KEYS.epoch, "e2")
    worker(settings).heartbeat([HELD], "e1")
    async with operator(settings) as side:
        assert not await side.ledger.withdraw(key())
    assert raw.zscore(KEYS.ledger, HELD.member) is None


async def test_a_stream_that_takes_nothing_holds_up_no_other_namespace(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    greatest = f"{2**64 - 1}-{2**64 - 1}"
    async with operator(settings) as side:
        await side.namespaces.ensure([NAMESPACE, "team-b"])
        raw.xadd(keys_of("team-b").events, {"k": "x"}, id=greatest)
        assert await side.ledger.give_up([key(namespace="team-b"), key()], LOST) == [False, True]
    assert kinds(raw) == [EventKind.LOST]
