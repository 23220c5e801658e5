"""What a runner reports and what it says of its process, when something fails outside of the handler."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from taskflow_core.domain.events import EventKind, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Claim, Outcome
from taskflow_worker.process import runner as module
from taskflow_worker.process.runner import Runner, RunnerResources, Unclaimed
from taskflow_worker.process.shared_slots import SharedSlots
from taskflow_worker.sdk.registry import Registry
from tests.builders import make_message

SEEN: ContextVar[str] = ContextVar("seen", default="")
TOO_MANY = OSError(24, "Too many open files")


@dataclass
class FakeLedger:
    claiming: Exception | None = None
    told: list[tuple[EventKind, Outcome]] = field(default_factory=list)

    def candidate(self, message: Message, _: int) -> Claim:
        return Claim(message, "holder", "prefix", "e")

    def claim(self, candidate: Claim) -> Claim:
        if self.claiming is not None:
            raise self.claiming
        return candidate

    def finish(self, _: Claim, kind: EventKind, outcome: Outcome) -> bool:
        self.told.append((kind, outcome))
        return True


@dataclass
class FakeShipper:
    before: Exception | None = None
    after: Exception | None = None

    @contextmanager
    def shipping(self, *_: object) -> Iterator[None]:
        if self.before is not None:
            raise self.before
        yield
        if self.after is not None:
            raise self.after


@dataclass
class FakeHousekeeping:
    packages: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    @contextmanager
    def around(self, package: str) -> Iterator[None]:
        self.packages.append(package)
        yield

    def broken(self, why: str) -> None:
        self.why.append(why)


@dataclass
class Scene:
    ledger: FakeLedger = field(default_factory=FakeLedger)
    shipper: FakeShipper = field(default_factory=FakeShipper)
    housekeeping: FakeHousekeeping = field(default_factory=FakeHousekeeping)
    slots: SharedSlots = field(default_factory=lambda: SharedSlots(1))

    def execute(self, handler: str = "spoil") -> None:
        resources = RunnerResources(
            cast("Any", self.ledger), cast("Any", None), cast("Any", self.shipper), patience=0, log_level=20
        )
        Runner(1, self.slots.slot(0), resources, self.housekeeping).execute(make_message(handler=handler))

    @property
    def told(self) -> tuple[EventKind, Outcome]:
        (told,) = self.ledger.told
        return told


def spoil() -> str:
    SEEN.set("yes")
    decimal.getcontext().prec = 3
    return "done"


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    registry.add("spoil", spoil)
    monkeypatch.setattr(module, "REGISTRY", registry)


def test_an_attempt_has_a_context_of_its_own() -> None:
    scene, precision = Scene(), decimal.getcontext().prec
    scene.execute()
    assert scene.told[0] is EventKind.SUCCEEDED
    assert (SEEN.get(), decimal.getcontext().prec) == ("", precision)
    assert scene.housekeeping == FakeHousekeeping(packages=["tests"])


def test_an_error_before_the_handler_ends_the_attempt_with_its_cause_and_the_runner() -> None:
    scene = Scene(shipper=FakeShipper(before=TOO_MANY))
    scene.execute()
    kind, failure = scene.told
    assert isinstance(failure, Failure)
    assert (kind, failure.reason, failure.type) == (EventKind.FAILED, Reason.WORKER_ERROR, "OSError")
    assert failure.message == "the worker failed outside of the handler: OSError: [Errno 24] Too many open files"
    assert scene.housekeeping.why == [failure.message]
    assert scene.slots.occupied() == 0


def test_an_error_after_the_handler_leaves_its_outcome_and_ends_the_runner() -> None:
    scene = Scene(shipper=FakeShipper(after=TOO_MANY))
    scene.execute()
    kind, outcome = scene.told
    assert isinstance(outcome, Success)
    assert (kind, outcome.result) == (EventKind.SUCCEEDED, "done")
    assert len(scene.housekeeping.why) == 1


@pytest.mark.parametrize("error", [TOO_MANY, Unavailable("down")])
def test_without_a_claim_nothing_is_told_and_another_runner_may_have_the_message(error: Exception) -> None:
    scene = Scene(ledger=FakeLedger(claiming=error))
    with pytest.raises(Unclaimed, match=str(error).replace("[", r"\[")):
        scene.execute()
    assert scene.ledger.told == []
    assert scene.housekeeping.packages == []
