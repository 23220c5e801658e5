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
from taskflow_worker.process import threads as module
from taskflow_worker.process.shared_slots import SharedSlots
from taskflow_worker.process.termination import Terminator
from taskflow_worker.process.threads import CeleryThreads, Threads
from tests.e2e.product import eventually

MEMBER = "a:1"
GRACE, RETURN = 10.0, 0.2


@dataclass
class FakeLedger:
    reported: list[tuple[EventKind, Failure]] = field(default_factory=list)
    held: bool = True

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        self.reported.append((kind, failure))
        return self.held


@dataclass
class FakeLeases:
    running: list[Holding] = field(default_factory=list)

    def current(self) -> list[Holding]:
        return list(self.running)

    def drop(self, holding: Holding) -> None:
        self.running.remove(holding)


@dataclass
class Scene:
    """A thread that runs an attempt until `go` is set."""

    slots: SharedSlots = field(default_factory=lambda: SharedSlots(2))
    leases: FakeLeases = field(default_factory=FakeLeases)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    stopped: list[bool] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        resources = cast(
            "Any", SimpleNamespace(**dict.fromkeys(("ledger", "objects", "shipper", "patience", "log_level")))
        )
        self.pool = Threads(self.slots, lambda _: resources, RETURN, lambda: self.stopped.append(True))
        self.terminator = Terminator(cast("Any", self.leases), self.slots, cast("Any", self.ledger), self.pool, GRACE)
        begun = threading.Event()

        def work() -> None:
            slot = self.slots.slot(0)
            self.leases.running.append(Holding(MEMBER, threading.get_native_id(), "t"))
            slot.begin(threading.get_native_id(), MEMBER, None)
            begun.set()
            self.go.wait(20)
            slot.end(MEMBER)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert begun.wait(10)

    def overdue(self) -> None:
        """Cancel the attempt, which does not stop."""
        self.terminator.on_heartbeat(Heartbeat("e", (), {MEMBER: Reason.CANCELLED}))
        self.terminator.check(100.0)
        self.terminator.check(100.0 + GRACE)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.go.set()
    made.thread.join()


def test_an_attempt_that_does_not_stop_is_reported_and_its_thread_is_given_up(scene: Scene) -> None:
    scene.overdue()
    ((kind, failure),) = scene.ledger.reported
    assert (kind, failure.reason) == (EventKind.CANCELLED, Reason.CANCELLED)
    assert "did not stop within 10 s and was given up, since a thread cannot be killed" in failure.message
    assert scene.leases.running == []
    assert scene.pool.given_up() == 1
    assert scene.slots.occupied() == 1


def test_a_thread_that_returns_is_used_again(scene: Scene) -> None:
    scene.overdue()
    scene.go.set()
    scene.thread.join(10)
    assert not scene.thread.is_alive(), "its slot does not block it"
    assert scene.pool.given_up() == 0
    time.sleep(RETURN * 2)
    assert scene.stopped == []
    assert scene.pool.finish(0) == 0


def test_the_worker_ends_if_a_thread_does_not_return(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    scene.overdue()
    eventually(lambda: scene.stopped, lambda stopped: stopped == [True], 10)
    scene.pool.exit_now()
    assert codes == [module.EXIT_LOST_THREAD]


def test_an_attempt_that_has_ended_is_not_given_up(scene: Scene) -> None:
    scene.ledger.held = False
    scene.overdue()
    assert scene.pool.given_up() == 0
    scene.go.set()
    scene.thread.join(10)
    assert not scene.thread.is_alive()


def test_a_timeout_raises_nothing_and_signals_nobody(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal"))
    scene.slots.slot(0).begin(scene.leases.running[0].runner, MEMBER, 50.0)
    scene.terminator.check(60.0)
    assert scene.slots.slot(0).stop_requested(MEMBER) is Reason.ATTEMPT_TIMEOUT


def test_each_thread_has_its_own_runner_and_slot(scene: Scene) -> None:
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


def test_a_thread_that_a_handler_left_behind_does_not_block_the_exit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    left = threading.Thread(target=scene.go.wait, daemon=False)
    left.start()
    scene.pool.finish(0)
    assert codes == [0]
