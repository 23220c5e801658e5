from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

import pytest
from celery import Celery

from taskflow_worker.process.intake import Intake, return_outstanding


@dataclass
class FakeQos:
    credit: bool = True

    def can_consume(self) -> bool:
        return self.credit


@dataclass
class FakeChannel:
    """Like kombu's: `_in_poll` is the connection of the outstanding request."""

    qos: FakeQos = field(default_factory=FakeQos)
    _in_poll: object = None


@dataclass
class FakeTaskConsumer:
    channel: FakeChannel = field(default_factory=FakeChannel)


@dataclass
class FakeConsumer:
    """A Celery consumer whose event loop the test drives."""

    task_consumer: FakeTaskConsumer = field(default_factory=FakeTaskConsumer)
    soon: list[Callable[[], None]] = field(default_factory=list)

    @property
    def channel(self) -> FakeChannel:
        return self.task_consumer.channel

    def call_soon(self, act: Callable[[], None]) -> None:
        self.soon.append(act)

    def turn(self) -> bool:
        """Run the loop once. True if it sent a request for a message to Redis."""
        for act in self.soon:
            act()
        self.soon.clear()
        if self.channel._in_poll or not self.channel.qos.can_consume():
            return False
        self.channel._in_poll = "connection"
        return True

    def answer(self) -> bool:
        """Let Redis answer. True if the answer was read."""
        read = self.channel.qos.can_consume()
        if read:
            self.channel._in_poll = None
        return read


@dataclass
class Changes:
    times: int = 0

    def __call__(self) -> None:
        self.times += 1


def guarded(*, on: bool) -> tuple[Intake, FakeConsumer, Changes]:
    changes = Changes()
    intake, consumer = Intake(changes), FakeConsumer()
    intake.switch(on=on)
    intake.guard(consumer)
    changes.times = 0
    return intake, consumer, changes


def test_the_intake_starts_closed() -> None:
    intake, consumer = Intake(Changes()), FakeConsumer()
    intake.guard(consumer)
    assert not consumer.turn()
    assert intake.quiet
    intake.switch(on=True)
    assert consumer.turn()
    assert not intake.quiet


def test_an_outstanding_request_completes_and_no_other_is_sent() -> None:
    intake, consumer, changes = guarded(on=True)
    assert consumer.turn()
    intake.switch(on=False)
    consumer.turn()
    assert not intake.quiet
    assert consumer.answer()
    assert not intake.quiet, "its message counts as reserved only from the next turn on"
    assert not consumer.turn()
    assert intake.quiet
    assert changes.times == 1


def test_a_close_waits_for_celerys_thread() -> None:
    intake, consumer, _ = guarded(on=True)
    intake.switch(on=False)
    # Until Celery's thread applies it, a request may still be sent.
    assert consumer.channel.qos.can_consume()
    assert not consumer.turn()
    assert intake.quiet


def test_a_full_worker_is_quiet_at_once() -> None:
    intake, consumer, _ = guarded(on=True)
    consumer.channel.qos.credit = False
    assert not consumer.turn()
    assert not intake.quiet
    intake.switch(on=False)
    consumer.turn()
    assert intake.quiet


def test_an_open_intake_keeps_celerys_own_limit() -> None:
    _, consumer, _ = guarded(on=True)
    consumer.channel.qos.credit = False
    assert not consumer.turn()


def test_it_opens_again_and_reports_the_change() -> None:
    intake, consumer, changes = guarded(on=False)
    consumer.turn()
    changes.times = 0
    intake.switch(on=True)
    assert consumer.turn()
    assert not intake.quiet
    assert changes.times == 1


def test_only_the_last_of_several_switches_counts() -> None:
    intake, consumer, _ = guarded(on=True)
    for on in (False, True, False):
        intake.switch(on=on)
    # Celery's loop calls callbacks in any order.
    consumer.soon.reverse()
    assert not consumer.turn()
    intake.switch(on=True)
    intake.switch(on=False)
    assert not consumer.turn()
    assert intake.quiet


def test_a_repeated_switch_schedules_nothing() -> None:
    intake, consumer, _ = guarded(on=True)
    intake.switch(on=True)
    assert consumer.soon == []


def test_a_switch_can_be_repeated_until_it_is_applied() -> None:
    intake, consumer, _ = guarded(on=True)
    intake.switch(on=False)
    # The loop ended before it called the callback.
    consumer.soon.clear()
    intake.switch(on=False)
    assert not consumer.turn()


def test_after_a_reconnect_a_stop_holds_from_the_first_request() -> None:
    intake, consumer, _ = guarded(on=True)
    consumer.turn()
    intake.switch(on=False)
    again = FakeConsumer()
    intake.guard(again)
    assert not again.turn()
    assert intake.quiet
    intake.switch(on=True)
    assert again.turn()


def test_celery_guards_each_consumer_before_its_loop_runs() -> None:
    app = Celery("test", set_as_current=False)
    intake, consumer = Intake(Changes()), FakeConsumer()
    intake.install(app)
    (step,) = app.steps["consumer"]
    made: Any = step(consumer)
    assert [str(each) for each in made.requires] == ["celery.worker.consumer.tasks:Tasks"]
    made.start(consumer)
    assert not consumer.turn()


@dataclass
class Answer:
    """A connection with or without an answer."""

    comes: bool

    def can_read(self, timeout: float) -> bool:
        return self.comes


@dataclass
class EndingChannel:
    _in_poll: Answer | None
    fails: Exception | None = None
    read: list[str] = field(default_factory=list)
    connection_errors: tuple[type[Exception], ...] = (ConnectionError,)

    def _brpop_read(self) -> None:
        self.read.append("with consumers" if self.consumers else "without")
        if self.fails is not None:
            raise self.fails

    consumers: bool = True


@dataclass
class EndingConsumer:
    channel: EndingChannel

    @property
    def task_consumer(self) -> EndingConsumer:
        return self

    def cancel(self) -> None:
        self.channel.consumers = False


@pytest.mark.parametrize("fails", [None, Empty(), ConnectionError("gone")])
def test_a_stopping_worker_reads_the_answer_to_its_request_without_consumers(fails: Exception | None) -> None:
    channel = EndingChannel(Answer(comes=True), fails)
    return_outstanding(EndingConsumer(channel))
    assert channel.read == ["without"]


@pytest.mark.parametrize("awaited", [None, Answer(comes=False)])
def test_a_stopping_worker_does_not_wait_for_a_missing_answer(awaited: Answer | None) -> None:
    channel = EndingChannel(awaited)
    return_outstanding(EndingConsumer(channel))
    assert channel.read == []
    assert not channel.consumers


def test_shutting_the_intake_cancels_the_consumers() -> None:
    intake = Intake(Changes())
    intake.shut()
    consumer = FakeConsumer()
    cancelled: list[bool] = []
    consumer.task_consumer.cancel = lambda: cancelled.append(True)  # type: ignore[attr-defined]
    intake.guard(consumer)
    intake.shut()
    assert cancelled == [True]
