from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Any, cast

from structlog.testing import capture_logs

from taskflow_core.errors import Unavailable
from taskflow_worker.process.presence import Load, PresenceReporter
from tests.unit.taskflow_worker.test_intake import FakeConsumer


@dataclass(frozen=True)
class Report:
    busy: int
    serving: bool
    claimed_ago_ms: int | None


@dataclass
class FakePresence:
    """The operator's answers to reports. The last one is repeated."""

    answers: list[bool | Exception] = field(default_factory=lambda: [False])
    reports: list[Report] = field(default_factory=list)
    left_after: int | None = None
    name: str = "w"
    enough: Event = field(default_factory=Event)

    def report(self, *, busy: int, serving: bool, claimed_ago_ms: int | None) -> bool:
        self.reports.append(Report(busy, serving, claimed_ago_ms))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if len(self.answers) == 1:
            self.enough.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self) -> None:
        self.left_after = len(self.reports)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A reporter with fakes of everything that it uses."""

    presence: FakePresence = field(default_factory=FakePresence)
    load: Load = field(default_factory=lambda: Load(0, 0))
    clock: Clock = field(default_factory=Clock)
    consumer: FakeConsumer = field(default_factory=FakeConsumer)

    def __post_init__(self) -> None:
        self.reporter = PresenceReporter(cast("Any", self.presence), lambda: self.load, self.clock)
        self.reporter._intake.guard(self.consumer)

    def report(self) -> Report:
        self.reporter.report()
        return self.presence.reports[-1]


def test_the_first_answer_opens_the_intake() -> None:
    bench = Bench()
    assert not bench.consumer.turn()
    bench.report()
    assert bench.consumer.turn()
    assert bench.report() == Report(0, True, None)


def test_a_worker_serves_until_no_message_can_arrive() -> None:
    bench = Bench()
    bench.report()
    bench.consumer.turn()
    bench.presence.answers = [True]
    assert bench.report().serving
    bench.consumer.turn()
    assert bench.report().serving, "a request for a message is outstanding"
    bench.consumer.answer()
    bench.consumer.turn()
    assert not bench.report().serving


def test_a_message_that_waits_for_a_runner_can_still_start() -> None:
    bench = Bench(FakePresence([True]), Load(busy=2, waiting=1))
    bench.consumer.turn()
    assert bench.report() == Report(2, True, None)
    bench.load = Load(busy=2, waiting=0)
    assert bench.report() == Report(2, False, None)


def test_a_message_that_arrives_during_a_report_is_not_missed() -> None:
    bench = Bench()
    bench.report()
    bench.consumer.turn()
    bench.presence.answers = [True]
    bench.report()
    bench.consumer.turn()

    def load() -> Load:
        # Meanwhile in Celery's thread: the answer brings a message, which starts.
        before = Load(0, 0)
        bench.consumer.answer()
        bench.consumer.turn()
        return before

    bench.reporter._load = load
    assert bench.report().serving


def test_it_reports_how_long_ago_it_accepted_a_request() -> None:
    bench = Bench()
    assert bench.report().claimed_ago_ms is None
    bench.reporter.accepted()
    bench.clock.now += 2.5
    assert bench.report().claimed_ago_ms == 2500


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
    bench.report()
    bench.reporter._changed.clear()
    bench.consumer.turn()
    assert bench.reporter._changed.is_set()


def test_stopping_withdraws_the_report() -> None:
    bench = Bench()
    bench.reporter.start()
    assert bench.presence.enough.wait(10)
    bench.reporter.stop()
    assert not bench.reporter._thread.is_alive()
    assert bench.presence.left_after == len(bench.presence.reports)


def test_a_worker_that_stops_before_it_was_ready_stops_without_an_error() -> None:
    bench = Bench()
    bench.reporter.stop()
    assert bench.presence.reports == []
    assert bench.presence.left_after is None
