"""The model of tests/model held against the real scripts: the same steps, the same answers, the same keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from taskflow_core.domain import naming
from taskflow_core.domain.events import EventKind, Failure, Success
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.worker import Claim, Holding, WorkerLedger
from taskflow_core.settings import RedisSettings
from tests.builders import TOKEN_KEY, UID, make_message
from tests.integration.ledger.builders import DONE, KEYS, NAMESPACE, NOT_DONE, entry, epoch, key, noted, told, worker
from tests.model import scripts

pytestmark = pytest.mark.integration
NAMES = ("w1", "w2")
PID = 7
numbers = st.integers(1, 2)
names = st.sampled_from(NAMES)


def holding(attempt: int) -> Holding:
    return Holding(naming.member(UID, attempt), PID, make_message(attempt=attempt).token)


class Side:
    """The real Redis, with one operator and two workers."""

    def __init__(self, settings: RedisSettings, raw: redis.Redis) -> None:
        self.raw = raw
        self.loop = asyncio.new_event_loop()
        self.client = connect_async(settings)
        self.namespaces = Namespaces(self.client)
        self.operator = OperatorLedger(self.client, self.namespaces, TOKEN_KEY)
        # Known from now on: nothing but `open` opens it again.
        self.loop.run_until_complete(self.namespaces.ensure([NAMESPACE]))
        self.workers: dict[str, WorkerLedger] = {name: worker(settings, name) for name in NAMES}

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(self.client.connection_pool.disconnect())
        self.loop.close()

    def seen(self) -> scripts.Redis:
        """What the model has of it."""
        groups: Any = self.raw.xinfo_groups(KEYS.events) if self.raw.exists(KEYS.events) else ()
        members = [naming.member(UID, number) for number in (1, 2)]
        found = [(member, str(self.raw.get(KEYS.claim_prefix + member) or "")) for member in members]
        entered: Any = self.raw.zrange(KEYS.ledger, 0, -1)
        leased: Any = self.raw.zrange(KEYS.leases, 0, -1)
        stops: Any = self.raw.hkeys(KEYS.stops)
        return scripts.Redis(
            begun=bool(self.raw.exists(naming.KEY_EPOCH)),
            epoch=epoch(self.raw),
            group="cr" in {each["name"] for each in groups},
            ledger=frozenset(entered),
            claims=tuple(pair for pair in found if pair[1]),
            leases=frozenset(leased),
            stops=frozenset(stops),
            # Read with their tokens: each script adds the one of its attempt.
            events=tuple((event.kind.value, naming.member(event.uid, event.attempt)) for event in told(self.raw)),
            notes=tuple((event.kind.value, naming.member(event.uid, event.attempt)) for event in noted(self.raw)),
        )


class Both(RuleBasedStateMachine):
    """Each rule is one script, on both."""

    side: Side

    def __init__(self) -> None:
        super().__init__()
        self.side.raw.flushall()
        self.model = scripts.Redis()
        self.claims: dict[tuple[str, int], Claim] = {}
        self.known = dict.fromkeys(NAMES, "")

    def act(self, work: Any) -> Any:
        return self.side.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.begin_epoch()
        self.open()

    @rule()
    def begin_epoch(self) -> None:
        self.model, begun = scripts.begin_epoch(self.model)
        assert self.act(self.side.operator.begin_epoch("e")) == begun

    @rule()
    def open(self) -> None:
        lost: list[str] = []
        self.side.namespaces.lost[:] = [lost.extend]
        self.act(self.side.namespaces.data_lost([]))
        # Its name is made up by whoever opens it.
        self.model, opened = scripts.open_namespace(self.model, epoch(self.side.raw))
        assert lost == [NAMESPACE] * opened

    @rule(attempt=numbers, again=st.booleans())
    def enqueue(self, attempt: int, again: bool) -> None:
        self.model, answer = scripts.enqueue(self.model, naming.member(UID, attempt), again=again)
        (entered,) = self.act(self.side.operator.enqueue([entry(attempt)], again=again))
        assert entered.entry == answer

    @rule(attempt=numbers, name=names, repeated=st.booleans())
    def claim(self, attempt: int, name: str, repeated: bool) -> None:
        ledger, former = self.side.workers[name], self.claims.get((name, attempt))
        candidate = former if repeated and former else ledger.candidate(make_message(attempt=attempt), PID)
        member = naming.member(UID, attempt)
        self.model, granted = scripts.claim(self.model, member, candidate.holder, candidate.prefix)
        claim = ledger.claim(candidate)
        assert (claim is not None) == granted
        if claim is not None:
            assert claim.epoch == self.model.epoch
            self.claims[name, attempt] = claim

    @rule(attempt=numbers, name=names, well=st.booleans())
    def finish(self, attempt: int, name: str, well: bool) -> None:
        claim = self.claims.get((name, attempt))
        if claim is None:
            return
        kind = EventKind.SUCCEEDED if well else EventKind.FAILED
        outcome: Success | Failure = DONE if well else NOT_DONE
        member = naming.member(UID, attempt)
        self.model, counted = scripts.finish(self.model, member, claim.holder, claim.prefix, kind, claim.epoch)
        assert self.side.workers[name].finish(claim, kind, outcome) == counted

    @rule(name=names, attempts=st.sets(numbers))
    def heartbeat(self, name: str, attempts: set[int]) -> None:
        held = [naming.member(UID, attempt) for attempt in sorted(attempts)]
        pairs = [(member, f"{name}|{PID}|") for member in held]
        self.model, answer = scripts.heartbeat(self.model, pairs, self.known[name])
        holdings = [holding(attempt) for attempt in sorted(attempts)]
        beat = self.side.workers[name].heartbeat(holdings, self.known[name])
        assert (beat.epoch, frozenset(beat.fenced), frozenset(beat.stops)) == answer
        self.known[name] = beat.epoch

    @rule(attempt=numbers, name=names, kind=st.sampled_from([EventKind.LOST, EventKind.RELEASED, EventKind.CANCELLED]))
    def surrender(self, attempt: int, name: str, kind: EventKind) -> None:
        member = naming.member(UID, attempt)
        self.model, held = scripts.surrender(self.model, member, f"{name}|{PID}|", kind)
        assert self.side.workers[name].surrender(holding(attempt), kind, NOT_DONE) == held

    @rule(attempt=numbers)
    def withdraw(self, attempt: int) -> None:
        self.model, free = scripts.withdraw(self.model, naming.member(UID, attempt))
        assert self.act(self.side.operator.withdraw(key(attempt))) == free

    @rule(attempt=numbers)
    def stop(self, attempt: int) -> None:
        self.model = scripts.stop(self.model, naming.member(UID, attempt))
        self.act(self.side.operator.request_stop(key(attempt), Reason.CANCELLED))

    @rule(attempt=numbers)
    def expire(self, attempt: int) -> None:
        member = naming.member(UID, attempt)
        self.side.raw.zadd(KEYS.leases, {member: 1}, xx=True)
        ran_out = self.model.leases & {member}
        self.model = scripts.expire(self.model, ran_out)
        (found,) = self.act(self.side.operator.survey({NAMESPACE: 0}, grace_ms=0, limit=1))
        assert frozenset(each.member for each in self.act(self.side.operator.expire(found.expired))) == ran_out

    @rule(attempt=numbers)
    def give_up(self, attempt: int) -> None:
        self.model, given = scripts.give_up(self.model, naming.member(UID, attempt))
        assert self.act(self.side.operator.give_up([key(attempt)], NOT_DONE)) == [given]

    @rule(attempt=numbers, gone=st.booleans())
    def settle(self, attempt: int, gone: bool) -> None:
        kind = EventKind.DELETED if gone else EventKind.SETTLED
        self.model = scripts.settle(self.model, naming.member(UID, attempt), kind)
        self.act(self.side.operator.settle(entry(attempt), kind))

    @rule()
    def flush(self) -> None:
        self.model = scripts.Redis()
        self.side.raw.flushall()

    @invariant()
    def the_keys_are_the_same(self) -> None:
        assert self.side.seen() == self.model


@pytest.fixture
def side(settings: RedisSettings, raw: redis.Redis) -> Iterator[Side]:
    found = Side(settings, raw)
    yield found
    found.close()


def test_the_real_scripts_do_what_the_model_says(side: Side) -> None:
    machine = type("Bound", (Both,), {"side": side})
    # Found by name, since a machine is made anew for each example.
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
