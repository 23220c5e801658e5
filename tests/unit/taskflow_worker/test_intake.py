from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from taskflow_worker.intake import Intake


@dataclass
class FakeQos:
    credit: bool = True

    def can_consume(self) -> bool:
        return self.credit


@dataclass
class FakeChannel:
    """As kombu's: `_in_poll` is the connection on which an answer is awaited."""

    qos: FakeQos = field(default_factory=FakeQos)
    _in_poll: object = None


@dataclass
class FakeTaskConsumer:
    channel: FakeChannel = field(default_factory=FakeChannel)


@dataclass
class FakeConsumer:
    """A Celery consumer whose event loop turns when the test says so."""

    task_consumer: FakeTaskConsumer = field(default_factory=FakeTaskConsumer)
    soon: list[Callable[[], None]] = field(default_factory=list)

    @property
    def channel(self) -> FakeChannel:
        return self.task_consumer.channel

    def call_soon(self, act: Callable[[], None]) -> None:
        self.soon.append(act)

    def turn(self) -> bool:
        """One turn of the loop; whether it asked Redis for a message."""
        for act in self.soon:
            act()
        self.soon.clear()
        if self.channel._in_poll or not self.channel.qos.can_consume():
            return False
        self.channel._in_poll = "connection"
        return True

    def answer(self) -> bool:
        """Redis answered; whether the answer was read."""
        read = self.channel.qos.can_consume()
        if read:
            self.channel._in_poll = None
        return read


@dataclass
class Told:
    times: int = 0

    def __call__(self) -> None:
        self.times += 1


def guarded(*, on: bool) -> tuple[Intake, FakeConsumer, Told]:
    told = Told()
    intake, consumer = Intake(told), FakeConsumer()
    intake.switch(on=on)
    intake.guard(consumer)
    told.times = 0
    return intake, consumer, told


def test_it_takes_nothing_before_it_is_opened() -> None:
    intake, consumer = Intake(Told()), FakeConsumer()
    intake.guard(consumer)
    assert not consumer.turn()
    assert intake.quiet
    intake.switch(on=True)
    assert consumer.turn()
    assert not intake.quiet


def test_a_request_that_is_outstanding_is_read_to_its_end_and_no_other_is_sent() -> None:
    intake, consumer, told = guarded(on=True)
    assert consumer.turn()
    intake.switch(on=False)
    consumer.turn()
    assert not intake.quiet
    assert consumer.answer()
    assert not intake.quiet, "what it brought is not handed on before the next turn"
    assert not consumer.turn()
    assert intake.quiet
    assert told.times == 1


def test_a_close_waits_for_celerys_thread() -> None:
    intake, consumer, _ = guarded(on=True)
    intake.switch(on=False)
    # What Celery does before it gets there may still send a request.
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


def test_an_open_intake_keeps_celerys_own_bound() -> None:
    _, consumer, _ = guarded(on=True)
    consumer.channel.qos.credit = False
    assert not consumer.turn()


def test_it_opens_again_and_says_so() -> None:
    intake, consumer, told = guarded(on=False)
    consumer.turn()
    told.times = 0
    intake.switch(on=True)
    assert consumer.turn()
    assert not intake.quiet
    assert told.times == 1


def test_only_the_last_of_several_wishes_counts() -> None:
    intake, consumer, _ = guarded(on=True)
    for on in (False, True, False):
        intake.switch(on=on)
    # Celery's loop keeps no order among what it was given.
    consumer.soon.reverse()
    assert not consumer.turn()
    intake.switch(on=True)
    intake.switch(on=False)
    assert not consumer.turn()
    assert intake.quiet


def test_the_same_wish_again_costs_celery_nothing() -> None:
    intake, consumer, _ = guarded(on=True)
    intake.switch(on=True)
    assert consumer.soon == []


def test_a_wish_is_repeated_until_it_is_carried_out() -> None:
    intake, consumer, _ = guarded(on=True)
    intake.switch(on=False)
    # The loop was torn down before it came to it.
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
    intake, consumer = Intake(Told()), FakeConsumer()
    intake.watch(app)
    (step,) = app.steps["consumer"]
    made: Any = step(consumer)
    assert [str(each) for each in made.requires] == ["celery.worker.consumer.tasks:Tasks"]
    made.start(consumer)
    assert not consumer.turn()
