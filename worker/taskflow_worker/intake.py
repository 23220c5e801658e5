from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from celery import Celery, bootsteps

_ANSWER_SECONDS = 2.0
"""Redis answers a request for a message within a second, with a message or without; a Redis that does not is away."""


class Intake:
    """Whether this worker takes messages. Closed until it is opened, so that a stop holds for a restarted worker too.

    A closed intake asks Redis for no message. It does not cancel Celery's consumers: the request for a message (BRPOP)
    that is outstanding at that moment cannot be taken back, and kombu would put what it still brings to the far end of its
    list. It is left to its end instead, a second at most, and what it brings is run as ever. Then the intake is *quiet*: nothing
    arrives any more. It works like Celery's own `worker_disable_prefetch`, by the channel's `can_consume`, which kombu
    asks in Celery's thread before each BRPOP. After a reconnect it is in place before the first one.

    Args:
        changed: called in Celery's thread when it became open or quiet; must not block.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._wanted = False
        self._open = False
        self._quiet = False
        self._consumer: Any = None

    @property
    def quiet(self) -> bool:
        """Nothing arrives any more until it is opened: what arrived before counts as reserved by now. From any thread."""
        return self._quiet

    def switch(self, *, on: bool) -> None:
        """Open or close it, from any thread; it happens soon. May be repeated."""
        if self._wanted is on and self._open is on:
            return
        self._wanted = on
        if self._consumer is not None:
            # In Celery's thread, or else it could be between asking whether it may and sending a BRPOP.
            self._consumer.call_soon(self._carry_out)

    def watch(self, app: Celery) -> None:
        """Guard all channels that this application's worker will consume from."""
        intake = self

        class Guard(bootsteps.StartStopStep):  # type: ignore[misc]
            """Runs at each connection, after Celery made its consumer and before its event loop runs."""

            requires = ("celery.worker.consumer.tasks:Tasks",)

            def start(self, consumer: Any) -> None:
                intake.guard(consumer)

            def stop(self, consumer: Any) -> None:
                # Celery lets go of a connection that broke before it stops its steps.
                if consumer.connection is not None:
                    give_back(consumer)

        app.steps["consumer"].add(Guard)

    def end(self) -> None:
        """The worker was told to end (SIGTERM): what still arrives is put back at once. From the main thread's signal handler.

        Celery would reserve what arrives in the last turn of its loop, and hold it until all that runs has ended.
        """
        if self._consumer is not None and self._consumer.task_consumer is not None:
            # For a queue without a consumer kombu puts back what arrives.
            self._consumer.task_consumer.cancel()

    def guard(self, consumer: Any) -> None:
        """Guard the channel of a Celery consumer that is about to run. In Celery's thread."""
        channel = consumer.task_consumer.channel
        may_consume = channel.qos.can_consume

        def can_consume() -> bool:
            # With a BRPOP outstanding (`_in_poll`) the question is whether to read its answer: always.
            if self._open or channel._in_poll:  # noqa: SLF001 - kombu has no public name for it
                return bool(may_consume())
            if not self._quiet:
                self._quiet = True
                self._changed()
            return False

        channel.qos.can_consume = can_consume
        self._consumer = consumer
        self._carry_out()

    def _carry_out(self) -> None:
        if self._open is self._wanted:
            return
        self._open = self._wanted
        if self._open:
            self._quiet = False
            self._changed()


def give_back(consumer: Any) -> None:
    """Let nothing lie in the hands of a Celery consumer that ends, whose loop does not turn any more.

    What an outstanding request for a message still brings would be noticed only after all that runs has ended.
    """
    consumer.task_consumer.cancel()
    channel = consumer.task_consumer.channel
    awaited = channel._in_poll  # noqa: SLF001 - see above
    with suppress(Empty, *channel.connection_errors):
        if awaited and awaited.can_read(timeout=_ANSWER_SECONDS):
            channel._brpop_read()  # noqa: SLF001 - as kombu does when it closes the channel
