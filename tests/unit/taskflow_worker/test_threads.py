from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.worker import Heartbeat, Holding
from taskflow_worker import threads as module
from taskflow_worker.board import Board
from taskflow_worker.enforcing import Enforcer
from taskflow_worker.threads import CeleryThreads, Threads
from tests.e2e.product import eventually

MEMBER = "a:1"
GRACE, RETURN = 10.0, 0.2


@dataclass
class FakeLedger:
    told: list[tuple[EventKind, Failure]] = field(default_factory=list)
    held: bool = True

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        self.told.append((kind, failure))
        return self.held


@dataclass
class FakeHoldings:
    running: list[Holding] = field(default_factory=list)

    def current(self) -> list[Holding]:
        return list(self.running)

    def forget(self, holding: Holding) -> None:
        self.running.remove(holding)


@dataclass
class Scene:
    """A thread that runs an attempt until it is let go."""

    board: Board = field(default_factory=lambda: Board(2))
    holdings: FakeHoldings = field(default_factory=FakeHoldings)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    stopped: list[bool] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        tools = cast("Any", SimpleNamespace(**dict.fromkeys(("ledger", "objects", "shipper", "patience", "log_level"))))
        self.pool = Threads(self.board, lambda _: tools, RETURN, lambda: self.stopped.append(True))
        self.enforcer = Enforcer(cast("Any", self.holdings), self.board, cast("Any", self.ledger), self.pool, GRACE)
        begun = threading.Event()

        def work() -> None:
            slot = self.board.slot(0)
            self.holdings.running.append(Holding(MEMBER, threading.get_native_id(), "t"))
            slot.begin(threading.get_native_id(), MEMBER, None)
            begun.set()
            self.go.wait(20)
            slot.end(MEMBER)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert begun.wait(10)

    def overdue(self) -> None:
        """It is cancelled and does not stop."""
        self.enforcer.hear(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
        self.enforcer.enforce(100.0)
        self.enforcer.enforce(100.0 + GRACE)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.go.set()
    made.thread.join()


def test_an_attempt_that_does_not_stop_is_settled_and_its_thread_counts_as_lost(scene: Scene) -> None:
    scene.overdue()
    ((kind, failure),) = scene.ledger.told
    assert (kind, failure.reason) == (EventKind.CANCELLED, Reason.CANCELLED)
    assert "did not stop within 10 s and was given up, since a thread cannot be killed" in failure.message
    assert scene.holdings.running == []
    assert scene.pool.lost() == 1
    assert scene.board.occupied() == 1


def test_a_thread_that_comes_back_is_of_use_again(scene: Scene) -> None:
    scene.overdue()
    scene.go.set()
    scene.thread.join(10)
    assert not scene.thread.is_alive(), "nothing holds it any more"
    assert scene.pool.lost() == 0
    time.sleep(RETURN * 2)
    assert scene.stopped == []
    assert scene.pool.ended(0) == 0


def test_the_worker_ends_for_the_sake_of_a_thread_that_does_not_come_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    scene.overdue()
    eventually(lambda: scene.stopped, lambda stopped: stopped == [True], 10)
    scene.pool.leave()
    assert codes == [module.LOST_THREAD]


def test_an_attempt_that_ended_meanwhile_is_not_given_up(scene: Scene) -> None:
    scene.ledger.held = False
    scene.overdue()
    assert scene.pool.lost() == 0
    scene.go.set()
    scene.thread.join(10)
    assert not scene.thread.is_alive()


def test_a_timeout_raises_nothing_and_signals_nobody(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal"))
    scene.board.slot(0).begin(scene.holdings.running[0].runner, MEMBER, 50.0)
    scene.enforcer.enforce(60.0)
    assert scene.board.slot(0).asked(MEMBER) is Reason.ATTEMPT_TIMEOUT


def test_each_thread_has_a_runner_and_a_slot_of_its_own(scene: Scene) -> None:
    both = threading.Barrier(2)

    def runner() -> tuple[int, int, bool]:
        both.wait(10)
        found = scene.pool.runner()
        return found.ident, threading.get_native_id(), found is scene.pool.runner()

    with ThreadPoolExecutor(2) as pool:
        first, second = [each.result() for each in [pool.submit(runner), pool.submit(runner)]]
    assert first[0] == first[1] != second[0] == second[1]
    assert first[2]
    assert second[2]


def test_celerys_pool_names_the_thread_and_keeps_contexts_apart() -> None:
    pool = CeleryThreads(2)
    accepted: list[int] = []
    threads: list[int] = []
    ends: list[Any] = []
    over = threading.Barrier(3)

    def work() -> str:
        threads.append(threading.get_native_id())
        over.wait(10)
        return "done"

    for _ in range(2):
        pool.on_apply(work, (), {}, callback=ends.append, accept_callback=lambda ident, _: accepted.append(ident))
    over.wait(10)
    pool.on_stop()
    assert sorted(accepted) == sorted(threads)
    assert len(set(threads)) == 2
    assert ends == ["done", "done"]


def test_a_thread_that_a_handler_left_does_not_hold_the_process(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    left = threading.Thread(target=scene.go.wait, daemon=False)
    left.start()
    scene.pool.ended(0)
    assert codes == [0]
