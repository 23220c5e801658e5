from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Any, cast

from structlog.testing import capture_logs

from taskflow_core.errors import Unavailable
from taskflow_worker.process.presence import Load, PresenceReporter
from tests.unit.taskflow_worker.test_intake import FakeConsumer


@dataclass(frozen=True)
class Said:
    busy: int
    serving: bool
    claimed_ago_ms: int | None


@dataclass
class FakePresence:
    """An operator that answers each report, with its last answer from then on."""

    answers: list[bool | Exception] = field(default_factory=lambda: [False])
    said: list[Said] = field(default_factory=list)
    left_after: int | None = None
    enough: Event = field(default_factory=Event)

    def report(self, *, busy: int, serving: bool, claimed_ago_ms: int | None) -> bool:
        self.said.append(Said(busy, serving, claimed_ago_ms))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if len(self.answers) == 1:
            self.enough.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self) -> None:
        self.left_after = len(self.said)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A reporter with a fake of everything around it."""

    presence: FakePresence = field(default_factory=FakePresence)
    load: Load = field(default_factory=lambda: Load(0, 0))
    clock: Clock = field(default_factory=Clock)
    consumer: FakeConsumer = field(default_factory=FakeConsumer)

    def __post_init__(self) -> None:
        self.reporter = PresenceReporter(cast("Any", self.presence), lambda: self.load, self.clock)
        self.reporter._intake.guard(self.consumer)

    def says(self) -> Said:
        self.reporter.report()
        return self.presence.said[-1]


def test_the_first_answer_opens_the_intake() -> None:
    bench = Bench()
    assert not bench.consumer.turn()
    bench.says()
    assert bench.consumer.turn()
    assert bench.says() == Said(0, True, None)


def test_a_worker_serves_until_nothing_can_arrive_any_more() -> None:
    bench = Bench()
    bench.says()
    bench.consumer.turn()
    bench.presence.answers = [True]
    assert bench.says().serving
    bench.consumer.turn()
    assert bench.says().serving, "a request for a message is outstanding"
    bench.consumer.answer()
    bench.consumer.turn()
    assert not bench.says().serving


def test_what_was_taken_and_waits_for_a_process_can_still_start() -> None:
    bench = Bench(FakePresence([True]), Load(busy=2, waiting=1))
    bench.consumer.turn()
    assert bench.says() == Said(2, True, None)
    bench.load = Load(busy=2, waiting=0)
    assert bench.says() == Said(2, False, None)


def test_what_arrives_while_it_looks_is_not_overlooked() -> None:
    bench = Bench()
    bench.says()
    bench.consumer.turn()
    bench.presence.answers = [True]
    bench.says()
    bench.consumer.turn()

    def look() -> Load:
        # Celery's thread in the meantime: the answer comes, and with it a message that runs.
        before = Load(0, 0)
        bench.consumer.answer()
        bench.consumer.turn()
        return before

    bench.reporter._load = look
    assert bench.says().serving


def test_it_says_how_long_ago_it_accepted_a_request() -> None:
    bench = Bench()
    assert bench.says().claimed_ago_ms is None
    bench.reporter.accepted()
    bench.clock.now += 2.5
    assert bench.says().claimed_ago_ms == 2500


def test_an_outage_of_redis_changes_nothing_and_ends_nothing() -> None:
    bench = Bench(FakePresence([False, Unavailable("down"), ValueError("odd"), False]))
    bench.reporter._changed.wait = lambda timeout=None: True  # type: ignore[method-assign]
    with capture_logs() as logs:
        bench.reporter.start()
        assert bench.presence.enough.wait(10)
        bench.reporter.stop()
    assert [each["event"] for each in logs] == ["intake_open", "presence_failed", "presence_failed"]
    assert bench.consumer.turn()


def test_a_change_is_reported_at_once() -> None:
    bench = Bench()
    bench.says()
    bench.reporter._changed.clear()
    bench.consumer.turn()
    assert bench.reporter._changed.is_set()


def test_the_last_word_is_that_it_left() -> None:
    bench = Bench()
    bench.reporter.start()
    assert bench.presence.enough.wait(10)
    bench.reporter.stop()
    assert not bench.reporter._thread.is_alive()
    assert bench.presence.left_after == len(bench.presence.said)


def test_a_worker_that_stops_before_it_was_ready_stops_without_an_error() -> None:
    bench = Bench()
    bench.reporter.stop()
    assert bench.presence.said == []
    assert bench.presence.left_after is None
