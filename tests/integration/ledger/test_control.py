from __future__ import annotations

import pytest
import redis

from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.worker import Holding
from taskflow_core.settings import RedisSettings
from tests.builders import UID, make_message
from tests.integration.ledger.builders import KEYS, entry, key, operator, worker
from tests.integration.ledger.test_scripts import claimed, entered

pytestmark = pytest.mark.integration
PID = 77
MEMBER = f"{UID}:1"
HELD = Holding(MEMBER, PID)


async def test_what_was_withdrawn_can_be_claimed_by_nobody_until_it_is_entered_again(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    await entered(settings)
    ledger = worker(settings)
    async with operator(settings) as side:
        assert await side.ledger.withdraw(key())
        assert await side.ledger.withdraw(key())
    assert ledger.claim(ledger.candidate(make_message(), PID)) is None
    await entered(settings)
    assert claimed(ledger).message.attempt == 1


async def test_what_somebody_claimed_cannot_be_withdrawn(settings: RedisSettings, raw: redis.Redis) -> None:
    await entered(settings)
    claimed(worker(settings))
    async with operator(settings) as side:
        assert not await side.ledger.withdraw(key())


async def test_a_stop_is_told_with_the_heartbeat_until_the_attempt_is_settled(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    await entered(settings)
    ledger = worker(settings)
    claimed(ledger)
    async with operator(settings) as side:
        await side.ledger.request_stop(key(), Reason.CANCELLED)
        assert ledger.heartbeat([HELD], "").stops == {MEMBER: Reason.CANCELLED}
        assert worker(settings, "pod-2:x").heartbeat([HELD], "").stops == {}
        await side.ledger.settle(entry())
        assert raw.hgetall(KEYS.stops) == {}
        await side.ledger.request_stop(key(), Reason.CANCELLED)
    assert raw.hgetall(KEYS.stops) == {}, "asked when it was over: nobody would take it back"
