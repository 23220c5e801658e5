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
from taskflow_worker.board import Board
from taskflow_worker.enforcing import Asked, Enforcer, Step, kind_of, next_step
from taskflow_worker.prefork import Prefork

MEMBER = "a:1"
GRACE = 10.0


@pytest.mark.parametrize(
    ("timeout_at", "wanted", "asked", "now", "expected"),
    [
        (None, None, None, 50.0, None),
        (60.0, None, None, 59.9, None),
        (60.0, None, None, 60.0, (Step.ASK, Reason.ATTEMPT_TIMEOUT)),
        (None, Reason.CANCELLED, None, 1.0, (Step.ASK, Reason.CANCELLED)),
        (60.0, Reason.CANCELLED, None, 61.0, (Step.ASK, Reason.CANCELLED)),
        (None, Reason.CANCELLED, Asked(Reason.CANCELLED, 50.0), 59.9, None),
        (None, Reason.CANCELLED, Asked(Reason.CANCELLED, 50.0), 60.0, (Step.END, Reason.CANCELLED)),
        # The first reason stays: it is what the handler was told.
        (60.0, Reason.CANCELLED, Asked(Reason.ATTEMPT_TIMEOUT, 60.0), 70.0, (Step.END, Reason.ATTEMPT_TIMEOUT)),
        # Who was asked is killed even if nobody wants it any more: the handler may have begun to stop.
        (None, None, Asked(Reason.CANCELLED, 50.0), 60.0, (Step.END, Reason.CANCELLED)),
    ],
)
def test_an_attempt_is_asked_first_and_ended_by_force_after_the_grace(
    timeout_at: float | None, wanted: Reason | None, asked: Asked | None, now: float, expected: Any
) -> None:
    assert next_step(timeout_at=timeout_at, wanted=wanted, asked=asked, now=now, grace=GRACE) == expected


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
def test_the_kind_of_an_end_follows_from_its_reason(reason: Reason, kind: EventKind) -> None:
    assert kind_of(reason) is kind


@dataclass
class FakeLedger:
    process: subprocess.Popen[bytes]
    held: bool = True
    down: bool = False
    told: list[tuple[EventKind, Failure]] = field(default_factory=list)

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        assert self.process.poll() is None, "told before the kill"
        if self.down:
            raise Unavailable("down")
        self.told.append((kind, failure))
        return self.held


@dataclass
class FakeHoldings:
    running: list[Holding]

    def current(self) -> list[Holding]:
        return list(self.running)

    def forget(self, holding: Holding) -> None:
        self.running.remove(holding)


@dataclass
class Scene:
    """A real process in the place of a pool process, and what surrounds it."""

    process: subprocess.Popen[bytes]
    board: Board
    holdings: FakeHoldings
    ledger: FakeLedger
    enforcer: Enforcer

    @property
    def ended(self) -> bool:
        try:
            self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return False
        return True


@pytest.fixture
def scene() -> Iterator[Scene]:
    # In the default action of SIGUSR1 a process ends, so this one ignores it, as a pool process handles it.
    command = ["sh", "-c", "trap '' USR1; echo ready; while :; do sleep 1000 & wait; done"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    board = Board(1)
    board.slot(0).begin(process.pid, MEMBER, None)
    holdings, ledger = FakeHoldings([Holding(MEMBER, process.pid, "t")]), FakeLedger(process)
    force = Prefork(board, lambda _: pytest.fail("no runner is made here"))
    enforcer = Enforcer(cast("Any", holdings), board, cast("Any", ledger), force, GRACE)
    yield Scene(process, board, holdings, ledger, enforcer)
    # Its whole group: what it started may still be there when it is not.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_cancelled_attempt_is_asked_and_then_killed_as_cancelled(scene: Scene) -> None:
    scene.enforcer.hear(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.enforcer.enforce(100.0)
    assert scene.board.slot(0).asked(MEMBER) is Reason.CANCELLED
    scene.enforcer.enforce(109.9)
    assert not scene.ended
    scene.enforcer.enforce(110.0)
    assert scene.ended
    assert scene.process.returncode == -signal.SIGKILL
    ((kind, failure),) = scene.ledger.told
    assert (kind, failure.reason) == (EventKind.CANCELLED, Reason.CANCELLED)
    assert "did not stop within 10 s and was killed" in failure.message
    # Its death is no loss of a worker.
    assert scene.holdings.running == []


def test_an_attempt_that_ended_meanwhile_is_left_alone(scene: Scene) -> None:
    scene.enforcer.hear(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.enforcer.enforce(100.0)
    scene.ledger.held = False
    scene.enforcer.enforce(110.0)
    assert not scene.ended
    # Not doomed any more: the process goes on at once.
    scene.board.slot(0).end(MEMBER, sleep=lambda _: pytest.fail("it waits"))


def test_a_process_that_has_taken_the_next_attempt_is_left_alone(scene: Scene) -> None:
    scene.enforcer.hear(Heartbeat("e", (MEMBER,), {}))
    scene.enforcer.enforce(100.0)
    scene.board.slot(0).begin(scene.process.pid, "b:1", None)
    scene.enforcer.enforce(110.0)
    assert not scene.ended
    assert scene.ledger.told == []


def test_without_redis_the_kill_waits(scene: Scene) -> None:
    scene.enforcer.hear(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.enforcer.enforce(100.0)
    scene.ledger.down = True
    scene.enforcer.enforce(110.0)
    assert not scene.ended
    scene.ledger.down = False
    scene.enforcer.enforce(111.0)
    assert scene.ended


def test_a_fenced_attempt_is_killed_without_a_word(scene: Scene) -> None:
    scene.enforcer.hear(Heartbeat("e", (MEMBER,), {}))
    scene.enforcer.enforce(100.0)
    assert scene.board.slot(0).asked(MEMBER) is Reason.WORKER_LOST
    scene.enforcer.enforce(110.0)
    assert scene.ended
    assert scene.ledger.told == []


def test_an_attempt_that_is_fenced_after_it_was_asked_is_killed_too(scene: Scene) -> None:
    scene.enforcer.hear(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.enforcer.enforce(100.0)
    scene.ledger.held = False
    scene.enforcer.hear(Heartbeat("e", (MEMBER,), {}))
    scene.enforcer.enforce(110.0)
    assert scene.ended


def test_its_own_timeout_stops_an_attempt(scene: Scene) -> None:
    scene.board.slot(0).begin(scene.process.pid, MEMBER, 200.0)
    scene.enforcer.enforce(199.0)
    assert scene.board.slot(0).asked(MEMBER) is None
    scene.enforcer.enforce(200.0)
    assert scene.board.slot(0).asked(MEMBER) is Reason.ATTEMPT_TIMEOUT
    scene.enforcer.enforce(210.0)
    assert scene.ended
    assert scene.ledger.told[0][0] is EventKind.FAILED


def test_an_attempt_that_is_not_claimed_yet_is_not_touched(scene: Scene) -> None:
    scene.board.slot(0).end(MEMBER)
    scene.enforcer.hear(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
    scene.enforcer.enforce(100.0)
    scene.enforcer.enforce(200.0)
    assert not scene.ended
