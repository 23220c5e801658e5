from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Heartbeat, Holding
from taskflow_worker.holdings import Holdings


class Request:
    """What Celery hands over; only its identity matters."""


@dataclass
class FakeLedger:
    answers: list[Heartbeat | Unavailable] = field(default_factory=list)
    beats: list[tuple[tuple[Holding, ...], str]] = field(default_factory=list)
    surrendered: list[tuple[Holding, EventKind, Failure]] = field(default_factory=list)
    down: bool = False
    holds: bool = True
    enough: Event = field(default_factory=Event)

    def heartbeat(self, holdings: Sequence[Holding], known_epoch: str) -> Heartbeat:
        self.beats.append((tuple(holdings), known_epoch))
        answer = self.answers.pop(0)
        if not self.answers:
            self.enough.set()
            self.answers.append(Heartbeat("last", ()))
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        if self.down:
            raise Unavailable("down")
        self.surrendered.append((holding, kind, failure))
        return self.holds


def make(ledger: FakeLedger, *, interval: float = 0.001, active: Callable[[object], bool] = lambda _: True) -> Holdings:
    return Holdings(cast("Any", ledger), interval, active)


def beat(ledger: FakeLedger, holdings: Holdings) -> list[Any]:
    """Let it renew until all answers were given; the log of that."""
    with capture_logs() as logs:
        holdings.start()
        assert ledger.enough.wait(10)
        holdings.stop()
    return logs


def test_what_runs_is_renewed_with_the_process_that_runs_it() -> None:
    ledger = FakeLedger([Heartbeat("e1", ())])
    holdings = make(ledger)
    request = Request()
    holdings.accepted(request, "a:1", 10)
    beat(ledger, holdings)
    assert ledger.beats[0] == ((Holding("a:1", 10),), "")


def test_the_next_renewal_knows_the_epoch_of_the_last() -> None:
    ledger = FakeLedger([Heartbeat("e1", ()), Heartbeat("e2", ()), Heartbeat("e2", ())])
    beat(ledger, make(ledger))
    assert [epoch for _, epoch in ledger.beats[:3]] == ["", "e1", "e2"]


def test_an_outage_of_redis_ends_neither_the_thread_nor_what_it_knows() -> None:
    ledger = FakeLedger([Heartbeat("e1", ()), Unavailable("down"), Unavailable("down"), Heartbeat("e1", ())])
    logs = beat(ledger, make(ledger))
    assert [epoch for _, epoch in ledger.beats[:4]] == ["", "e1", "e1", "e1"]
    assert [each["event"] for each in logs].count("heartbeat_failed") == 2


def test_what_was_taken_away_is_told() -> None:
    ledger = FakeLedger([Heartbeat("e1", ("a:1",))])
    logs = beat(ledger, make(ledger))
    assert {"event": "attempt_fenced", "member": "a:1", "log_level": "warning"} in logs


def test_what_ended_is_no_longer_renewed() -> None:
    ledger = FakeLedger([Heartbeat("e1", ())])
    running = [True]
    holdings = make(ledger, active=lambda _: running[0])
    request = Request()
    holdings.accepted(request, "a:1", 10)
    running[0] = False
    beat(ledger, holdings)
    assert ledger.beats[0] == ((), "")


def test_a_request_that_celery_dropped_is_no_longer_renewed() -> None:
    ledger = FakeLedger([Heartbeat("e1", ())])
    holdings = make(ledger)
    holdings.accepted(Request(), "a:1", 10)
    beat(ledger, holdings)
    assert ledger.beats[0] == ((), "")


def test_a_second_delivery_of_what_runs_does_not_end_its_renewal() -> None:
    # kombu delivers again what was not acknowledged for ten minutes, maybe to another process of the same worker.
    ledger = FakeLedger([Heartbeat("e1", ())])
    first, second = Request(), Request()
    active: set[object] = {first, second}
    holdings = make(ledger, active=active.__contains__)
    holdings.accepted(first, "a:1", 10)
    holdings.accepted(second, "a:1", 11)
    active.discard(second)
    beat(ledger, holdings)
    assert Holding("a:1", 10) in ledger.beats[0][0]


def test_a_dead_process_gives_up_its_attempt_at_once() -> None:
    ledger = FakeLedger()
    holdings = make(ledger)
    request = Request()
    holdings.accepted(request, "a:1", 10)
    holdings.process_died(request, "signal 9")
    holdings.process_died(request, "told twice")
    ((holding, kind, why),) = ledger.surrendered
    assert (holding, kind) == (Holding("a:1", 10), EventKind.LOST)
    assert (why.reason, why.message) == (Reason.WORKER_LOST, "signal 9")


def test_the_death_of_a_process_that_held_nothing_is_no_event() -> None:
    ledger = FakeLedger()
    make(ledger).process_died(Request(), "signal 9")
    assert ledger.surrendered == []


def test_a_stopping_worker_hands_back_all_that_runs() -> None:
    ledger = FakeLedger()
    holdings = make(ledger)
    requests = [Request(), Request()]
    for number, request in enumerate(requests):
        holdings.accepted(request, f"a:{number}", 10 + number)
    assert holdings.hand_back() == 2
    assert {holding for holding, _, _ in ledger.surrendered} == {Holding("a:0", 10), Holding("a:1", 11)}
    assert {(kind, why.reason) for _, kind, why in ledger.surrendered} == {(EventKind.RELEASED, Reason.DRAIN)}


def test_only_what_was_still_held_is_counted() -> None:
    ledger = FakeLedger(holds=False)
    holdings = make(ledger)
    request = Request()
    holdings.accepted(request, "a:1", 10)
    assert holdings.hand_back() == 0


@pytest.mark.parametrize("act", ["hand_back", "process_died"])
def test_without_redis_the_lease_runs_out_instead(act: str) -> None:
    ledger = FakeLedger(down=True)
    holdings = make(ledger)
    request = Request()
    holdings.accepted(request, "a:1", 10)
    with capture_logs() as logs:
        if act == "hand_back":
            assert holdings.hand_back() == 0
        else:
            holdings.process_died(request, "signal 9")
    assert [each["event"] for each in logs] == ["surrender_failed"]


def test_what_was_only_delivered_is_not_renewed_and_the_epoch_is_learnt_when_it_is_claimed() -> None:
    # After lost data a heartbeat enters what it is told of: of an unclaimed delivery that would be a claim without an execution.
    ledger = FakeLedger([Heartbeat("e2", ()), Heartbeat("e2", ()), Heartbeat("e2", ())])
    holdings = Holdings(cast("Any", ledger), 0.001, lambda _: True, begun=lambda _: len(ledger.beats) > 1)
    request = Request()
    holdings.accepted(request, "a:1", 10)
    beat(ledger, holdings)
    held = (Holding("a:1", 10),)
    assert ledger.beats[:3] == [((), ""), ((), ""), (held, "")]
    assert holdings._epoch == "e2"
