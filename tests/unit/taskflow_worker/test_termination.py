from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Heartbeat, Holding
from taskflow_worker.process.prefork import Prefork
from taskflow_worker.process.shared_slots import SharedSlots
from taskflow_worker.process.stop_rules import Step, StopRequest, event_kind, next_step
from taskflow_worker.process.termination import HELD_UP_SECONDS, Terminator

MEMBER = "a:1"
GRACE = 10.0


@pytest.mark.parametrize(
    ("timeout_at", "wanted", "sent", "now", "expected"),
    [
        (None, None, None, 50.0, None),
        (60.0, None, None, 59.9, None),
        (60.0, None, None, 60.0, (Step.REQUEST, Reason.ATTEMPT_TIMEOUT)),
        (None, Reason.CANCELLED, None, 1.0, (Step.REQUEST, Reason.CANCELLED)),
        (60.0, Reason.CANCELLED, None, 61.0, (Step.REQUEST, Reason.CANCELLED)),
        (None, Reason.CANCELLED, StopRequest(Reason.CANCELLED, 50.0), 59.9, None),
        (None, Reason.CANCELLED, StopRequest(Reason.CANCELLED, 50.0), 60.0, (Step.TERMINATE, Reason.CANCELLED)),
        # The first reason stays: the handler already got it.
        (
            60.0,
            Reason.CANCELLED,
            StopRequest(Reason.ATTEMPT_TIMEOUT, 60.0),
            70.0,
            (Step.TERMINATE, Reason.ATTEMPT_TIMEOUT),
        ),
        # A request is final: the handler may already be stopping.
        (None, None, StopRequest(Reason.CANCELLED, 50.0), 60.0, (Step.TERMINATE, Reason.CANCELLED)),
    ],
)
def test_a_stop_is_requested_first_and_forced_after_the_grace_period(
    timeout_at: float | None, wanted: Reason | None, sent: StopRequest | None, now: float, expected: Any
) -> None:
    assert next_step(timeout_at=timeout_at, wanted=wanted, sent=sent, now=now, grace=GRACE) == expected


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.CANCELLED, EventKind.CANCELLED),
        (Reason.DEADLINE_EXCEEDED, EventKind.CANCELLED),
        (Reason.ATTEMPT_TIMEOUT, EventKind.FAILED),
        (Reason.HANDLER_ERROR, EventKind.FAILED),
        (Reason.NOT_RETRYABLE, EventKind.FAILED),
    ],
)
def test_the_event_kind_follows_from_the_reason(reason: Reason, kind: EventKind) -> None:
    assert event_kind(reason) is kind


@dataclass
class FakeLedger:
    process: subprocess.Popen[bytes]
    held: bool = True
    down: bool = False
    reported: list[tuple[EventKind, Failure]] = field(default_factory=list)

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        assert self.process.poll() is None, "the report precedes the kill"
        if self.down:
            raise Unavailable("down")
        self.reported.append((kind, failure))
        return self.held


@dataclass
class FakeLeases:
    running: list[Holding]

    def current(self) -> list[Holding]:
        return list(self.running)

    def drop(self, holding: Holding) -> None:
        self.running.remove(holding)


@dataclass
class Scene:
    """A real process instead of a pool process, with fakes around it."""

    process: subprocess.Popen[bytes]
    slots: SharedSlots
    leases: FakeLeases
    ledger: FakeLedger
    terminator: Terminator

    @property
    def ended(self) -> bool:
        try:
            self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return False
        return True


@pytest.fixture
def scene() -> Iterator[Scene]:
    # SIGUSR1 ends a process by default. This one ignores it, because a pool process handles it.
    command = ["sh", "-c", "trap '' USR1; echo ready; while :; do sleep 1000 & wait; done"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    slots = SharedSlots(1)
    slots.slot(0).begin(process.pid, MEMBER, None)
    leases, ledger = FakeLeases([Holding(MEMBER, process.pid, "t")]), FakeLedger(process)
    control = Prefork(slots, lambda _: pytest.fail("no runner is made here"))
    terminator = Terminator(cast("Any", leases), slots, cast("Any", ledger), control, GRACE)
    yield Scene(process, slots, leases, ledger, terminator)
    # Its whole group: what it started may still be there when it is not.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_cancelled_attempt_gets_a_request_and_is_then_killed_as_cancelled(scene: Scene) -> None:
    scene.terminator.on_heartbeat(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.terminator.check(100.0)
    assert scene.slots.slot(0).stop_requested(MEMBER) is Reason.CANCELLED
    scene.terminator.check(109.9)
    assert not scene.ended
    scene.terminator.check(110.0)
    assert scene.ended
    assert scene.process.returncode == -signal.SIGKILL
    ((kind, failure),) = scene.ledger.reported
    assert (kind, failure.reason) == (EventKind.CANCELLED, Reason.CANCELLED)
    assert "did not stop within 10 s and was killed" in failure.message
    # Its death does not count as a lost worker.
    assert scene.leases.running == []


def test_an_attempt_that_has_ended_is_left_alone(scene: Scene) -> None:
    scene.terminator.on_heartbeat(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.terminator.check(100.0)
    scene.ledger.held = False
    scene.terminator.check(110.0)
    assert not scene.ended
    # The mark is cleared: the process continues at once.
    scene.slots.slot(0).end(MEMBER, sleep=lambda _: pytest.fail("it waits"))


def test_a_process_that_runs_the_next_attempt_is_left_alone(scene: Scene) -> None:
    scene.terminator.on_heartbeat(Heartbeat("e", (MEMBER,), {}))
    scene.terminator.check(100.0)
    scene.slots.slot(0).begin(scene.process.pid, "b:1", None)
    scene.terminator.check(110.0)
    assert not scene.ended
    assert scene.ledger.reported == []


def test_without_redis_the_kill_waits(scene: Scene) -> None:
    scene.terminator.on_heartbeat(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.terminator.check(100.0)
    scene.ledger.down = True
    scene.terminator.check(110.0)
    assert not scene.ended
    scene.ledger.down = False
    scene.terminator.check(111.0)
    assert scene.ended


def test_a_fenced_attempt_is_killed_without_a_report(scene: Scene) -> None:
    scene.terminator.on_heartbeat(Heartbeat("e", (MEMBER,), {}))
    scene.terminator.check(100.0)
    assert scene.slots.slot(0).stop_requested(MEMBER) is Reason.WORKER_LOST
    scene.terminator.check(110.0)
    assert scene.ended
    assert scene.ledger.reported == []


def test_an_attempt_that_is_fenced_after_the_request_is_killed_too(scene: Scene) -> None:
    scene.terminator.on_heartbeat(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.terminator.check(100.0)
    scene.ledger.held = False
    scene.terminator.on_heartbeat(Heartbeat("e", (MEMBER,), {}))
    scene.terminator.check(110.0)
    assert scene.ended


def test_its_own_timeout_stops_an_attempt(scene: Scene) -> None:
    scene.slots.slot(0).begin(scene.process.pid, MEMBER, 200.0)
    scene.terminator.check(199.0)
    assert scene.slots.slot(0).stop_requested(MEMBER) is None
    scene.terminator.check(200.0)
    assert scene.slots.slot(0).stop_requested(MEMBER) is Reason.ATTEMPT_TIMEOUT
    scene.terminator.check(210.0)
    assert scene.ended
    assert scene.ledger.reported[0][0] is EventKind.FAILED


def test_an_attempt_that_is_not_claimed_yet_is_not_touched(scene: Scene) -> None:
    scene.slots.slot(0).register(scene.process.pid)
    scene.terminator.on_heartbeat(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.terminator.check(100.0)
    scene.terminator.check(200.0)
    assert not scene.ended


def test_a_runner_that_does_not_return_after_its_attempt_is_replaced(scene: Scene) -> None:
    scene.slots.slot(0).end(MEMBER)
    scene.terminator.check(100.0)
    scene.terminator.check(100.0 + HELD_UP_SECONDS - 1)
    assert not scene.ended
    scene.terminator.check(100.0 + HELD_UP_SECONDS)
    assert scene.ended
    assert scene.leases.running == []
    assert scene.ledger.reported == []


def test_a_runner_that_has_begun_the_next_attempt_is_not_held_up(scene: Scene) -> None:
    scene.slots.slot(0).end(MEMBER)
    scene.terminator.check(100.0)
    scene.slots.slot(0).begin(scene.process.pid, "b:1", None)
    scene.terminator.check(200.0)
    assert not scene.ended


def test_a_runner_that_has_not_begun_yet_is_not_held_up(scene: Scene) -> None:
    scene.leases.running = [Holding("b:1", scene.process.pid, "t")]
    scene.slots.slot(0).end(MEMBER)
    for now in (100.0, 200.0):
        scene.terminator.check(now)
    assert not scene.ended
