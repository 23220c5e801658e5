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
from taskflow_worker.process.leases import Leases


class Request:
    """A request of Celery. Only its identity matters."""


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
            # It goes on until it is stopped, so the last answer stays the same.
            self.answers.append(answer)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        if self.down:
            raise Unavailable("down")
        self.surrendered.append((holding, kind, failure))
        return self.holds


def make(ledger: FakeLedger, *, interval: float = 0.001, active: Callable[[object], bool] = lambda _: True) -> Leases:
    return Leases(cast("Any", ledger), interval, active)


def beat(ledger: FakeLedger, leases: Leases) -> list[Any]:
    """Renew until all answers are used up. Returns the log."""
    with capture_logs() as logs:
        leases.start()
        assert ledger.enough.wait(10)
        leases.stop()
    return logs


def test_a_running_attempt_is_renewed_with_its_runner() -> None:
    ledger = FakeLedger([Heartbeat("e1", ())])
    leases = make(ledger)
    request = Request()
    leases.accepted(request, "a:1", 10)
    beat(ledger, leases)
    assert ledger.beats[0] == ((Holding("a:1", 10),), "")


def test_a_renewal_sends_the_epoch_of_the_last_one() -> None:
    ledger = FakeLedger([Heartbeat("e1", ()), Heartbeat("e2", ()), Heartbeat("e2", ())])
    beat(ledger, make(ledger))
    assert [epoch for _, epoch in ledger.beats[:3]] == ["", "e1", "e2"]


def test_an_outage_of_redis_keeps_the_thread_and_the_epoch() -> None:
    ledger = FakeLedger([Heartbeat("e1", ()), Unavailable("down"), Unavailable("down"), Heartbeat("e1", ())])
    logs = beat(ledger, make(ledger))
    assert [epoch for _, epoch in ledger.beats[:4]] == ["", "e1", "e1", "e1"]
    assert [each["event"] for each in logs].count("heartbeat_failed") == 2


def test_a_fenced_attempt_is_logged() -> None:
    ledger = FakeLedger([Heartbeat("e1", ("a:1",))])
    logs = beat(ledger, make(ledger))
    assert {"event": "attempt_fenced", "member": "a:1", "log_level": "warning"} in logs


def test_an_ended_attempt_is_not_renewed() -> None:
    ledger = FakeLedger([Heartbeat("e1", ())])
    running = [True]
    leases = make(ledger, active=lambda _: running[0])
    request = Request()
    leases.accepted(request, "a:1", 10)
    running[0] = False
    beat(ledger, leases)
    assert ledger.beats[0] == ((), "")


def test_a_request_that_celery_dropped_is_not_renewed() -> None:
    ledger = FakeLedger([Heartbeat("e1", ())])
    leases = make(ledger)
    leases.accepted(Request(), "a:1", 10)
    beat(ledger, leases)
    assert ledger.beats[0] == ((), "")


def test_a_second_delivery_of_a_running_attempt_does_not_end_its_renewal() -> None:
    # kombu redelivers a message that is not acknowledged for ten minutes, maybe to another process of the same worker.
    ledger = FakeLedger([Heartbeat("e1", ())])
    first, second = Request(), Request()
    active: set[object] = {first, second}
    leases = make(ledger, active=active.__contains__)
    leases.accepted(first, "a:1", 10)
    leases.accepted(second, "a:1", 11)
    active.discard(second)
    beat(ledger, leases)
    assert Holding("a:1", 10) in ledger.beats[0][0]


def test_the_attempt_of_a_dead_process_is_surrendered_at_once() -> None:
    ledger = FakeLedger()
    leases = make(ledger)
    request = Request()
    leases.accepted(request, "a:1", 10)
    leases.process_died(request, "signal 9")
    leases.process_died(request, "reported twice")
    ((holding, kind, why),) = ledger.surrendered
    assert (holding, kind) == (Holding("a:1", 10), EventKind.LOST)
    assert (why.reason, why.message) == (Reason.WORKER_LOST, "signal 9")


def test_the_death_of_an_idle_process_is_no_event() -> None:
    ledger = FakeLedger()
    make(ledger).process_died(Request(), "signal 9")
    assert ledger.surrendered == []


def test_a_stopping_worker_releases_all_running_attempts() -> None:
    ledger = FakeLedger()
    leases = make(ledger)
    requests = [Request(), Request()]
    for number, request in enumerate(requests):
        leases.accepted(request, f"a:{number}", 10 + number)
    assert leases.release_all() == 2
    assert {holding for holding, _, _ in ledger.surrendered} == {Holding("a:0", 10), Holding("a:1", 11)}
    assert {(kind, why.reason) for _, kind, why in ledger.surrendered} == {(EventKind.RELEASED, Reason.DRAIN)}


def test_only_attempts_that_were_still_held_are_counted() -> None:
    ledger = FakeLedger(holds=False)
    leases = make(ledger)
    request = Request()
    leases.accepted(request, "a:1", 10)
    assert leases.release_all() == 0


@pytest.mark.parametrize("act", ["release_all", "process_died"])
def test_without_redis_the_lease_expires_instead(act: str) -> None:
    ledger = FakeLedger(down=True)
    leases = make(ledger)
    request = Request()
    leases.accepted(request, "a:1", 10)
    with capture_logs() as logs:
        if act == "release_all":
            assert leases.release_all() == 0
        else:
            leases.process_died(request, "signal 9")
    assert [each["event"] for each in logs] == ["surrender_failed"]


def test_an_unclaimed_delivery_is_not_renewed_and_delays_the_new_epoch() -> None:
    # After Redis lost its data, a heartbeat enters the attempts that it names. For an unclaimed delivery that would be
    # a claim without an execution.
    ledger = FakeLedger([Heartbeat("e2", ()), Heartbeat("e2", ()), Heartbeat("e2", ())])
    leases = Leases(cast("Any", ledger), 0.001, lambda _: True, claimed=lambda _: len(ledger.beats) > 1)
    request = Request()
    leases.accepted(request, "a:1", 10)
    beat(ledger, leases)
    held = (Holding("a:1", 10),)
    assert ledger.beats[:3] == [((), ""), ((), ""), (held, "")]
    assert leases._epoch == "e2"


def test_a_worker_that_stops_before_it_was_ready_stops_without_an_error() -> None:
    leases = make(FakeLedger())
    leases.stop()
    assert leases.current() == []
