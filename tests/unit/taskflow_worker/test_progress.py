from __future__ import annotations

import threading
from dataclasses import dataclass, field

from taskflow_core.domain.events import Advance
from taskflow_core.domain.task import Progress
from taskflow_core.errors import Unavailable
from taskflow_worker.attempts.progress import ProgressReporter

LONG = 3600.0


def done(count: int) -> Advance:
    return Advance(progress=Progress(done=count))


@dataclass
class Sender:
    """Records what is sent."""

    sent: list[Advance] = field(default_factory=list)
    failures: int = 0
    enough: int = 1
    arrived: threading.Event = field(default_factory=threading.Event)
    tried: threading.Event = field(default_factory=threading.Event)

    def send(self, advance: Advance) -> None:
        self.tried.set()
        if self.failures:
            self.failures -= 1
            raise Unavailable("down")
        self.sent.append(advance)
        if len(self.sent) >= self.enough:
            self.arrived.set()


def test_the_first_value_is_sent_at_once() -> None:
    sender = Sender()
    reporter = ProgressReporter(sender.send, LONG)
    reporter.report(done(1))
    assert sender.arrived.wait(10)
    assert reporter.close() is None
    assert sender.sent == [done(1)]


def test_within_the_interval_the_last_value_wins() -> None:
    sender = Sender()
    reporter = ProgressReporter(sender.send, LONG)
    reporter.report(done(1))
    assert sender.arrived.wait(10)
    for count in range(2, 100):
        reporter.report(done(count))
    assert reporter.close() == done(99)
    assert sender.sent == [done(1)]


def test_a_checkpoint_and_a_progress_do_not_overwrite_each_other() -> None:
    sender = Sender()
    reporter = ProgressReporter(sender.send, LONG)
    reporter.report(done(1))
    assert sender.arrived.wait(10)
    reporter.report(Advance(checkpoint='"a"'))
    reporter.report(done(2))
    reporter.report(Advance(checkpoint='"b"'))
    assert reporter.close() == Advance(progress=Progress(done=2), checkpoint='"b"')


def test_after_the_interval_the_next_value_is_sent() -> None:
    sender = Sender(enough=3)
    reporter = ProgressReporter(sender.send, 0.001)
    for count in range(3):
        sender.tried.clear()
        reporter.report(done(count))
        assert sender.tried.wait(10)
    assert sender.arrived.wait(10)
    assert reporter.close() is None
    assert sender.sent == [done(0), done(1), done(2)]


def test_a_value_that_could_not_be_sent_is_sent_again() -> None:
    sender = Sender(failures=3)
    reporter = ProgressReporter(sender.send, 0.001)
    reporter.report(done(1))
    assert sender.arrived.wait(10)
    assert reporter.close() is None
    assert sender.sent == [done(1)]


def test_a_value_that_could_not_be_sent_never_replaces_a_newer_one() -> None:
    sender = Sender(failures=1)
    reporter = ProgressReporter(sender.send, LONG)
    reporter.report(Advance(progress=Progress(done=1), checkpoint='"a"'))
    assert sender.tried.wait(10)
    reporter.report(done(2))
    assert reporter.close() == Advance(progress=Progress(done=2), checkpoint='"a"')


def test_a_handler_without_reports_starts_no_thread() -> None:
    before = threading.active_count()
    reporter = ProgressReporter(Sender().send)
    assert threading.active_count() == before
    assert reporter.close() is None
