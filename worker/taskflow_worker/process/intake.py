"""Whether this worker takes messages from the broker. Builds on internals of kombu's Redis transport."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from celery import Celery, bootsteps

_ANSWER_SECONDS = 2.0
"""Redis answers a request for a message within a second, with or without one. After that it is unavailable."""


class Intake:
    """Opens and closes the flow of messages. Starts closed, so that a stop request also holds for a restarted worker.

    A closed intake sends no request for a message (BRPOP) to Redis. It does not cancel Celery's consumers: a BRPOP that
    is outstanding at that moment cannot be taken back, and kombu would put the message that it returns to the far end
    of its list. Instead the outstanding BRPOP completes, within a second, and its message runs as usual. After that the
    intake is *quiet*: no message can arrive.

    It uses `can_consume` of the channel, as Celery's own `worker_disable_prefetch` does. kombu calls it in Celery's
    thread before each BRPOP. After a reconnect it is in place before the first BRPOP.

    Args:
        changed: called in Celery's thread when the intake becomes open or quiet. Must not block.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._wanted = False
        self._open = False
        self._quiet = False
        self._consumer: Any = None

    @property
    def quiet(self) -> bool:
        """No message can arrive until the intake opens, and earlier ones count as reserved. Any thread may read it."""
        return self._quiet

    def switch(self, *, on: bool) -> None:
        """Open or close the intake soon. Any thread may call it, repeatedly."""
        if self._wanted is on and self._open is on:
            return
        self._wanted = on
        if self._consumer is not None:
            # In Celery's thread: otherwise that thread could be between `can_consume` and its BRPOP.
            self._consumer.call_soon(self._apply)

    def install(self, app: Celery) -> None:
        """Guard every channel that the application's worker consumes from."""
        intake = self

        class Guard(bootsteps.StartStopStep):  # type: ignore[misc]
            """Runs at each connection, after Celery created its consumer and before its event loop runs."""

            requires = ("celery.worker.consumer.tasks:Tasks",)

            def start(self, consumer: Any) -> None:
                intake.guard(consumer)

            def stop(self, consumer: Any) -> None:
                # Celery drops a broken connection before it stops its steps.
                if consumer.connection is not None:
                    return_outstanding(consumer)

        app.steps["consumer"].add(Guard)

    def shut(self) -> None:
        """Return every message that still arrives to its list at once. Called by the signal handler of SIGTERM.

        Otherwise Celery reserves what arrives in the last turn of its loop and keeps it until all running attempts end.
        """
        if self._consumer is not None and self._consumer.task_consumer is not None:
            # kombu returns messages of a queue without a consumer.
            self._consumer.task_consumer.cancel()

    def guard(self, consumer: Any) -> None:
        """Guard the channel of a Celery consumer that is about to run. Called in Celery's thread."""
        channel = consumer.task_consumer.channel
        may_consume = channel.qos.can_consume

        def can_consume() -> bool:
            # While a BRPOP is outstanding (`_in_poll`), kombu asks whether to read its answer. It always must.
            if self._open or channel._in_poll:  # noqa: SLF001 - kombu has no public name for it
                return bool(may_consume())
            if not self._quiet:
                self._quiet = True
                self._changed()
            return False

        channel.qos.can_consume = can_consume
        self._consumer = consumer
        self._apply()

    def _apply(self) -> None:
        if self._open is self._wanted:
            return
        self._open = self._wanted
        if self._open:
            self._quiet = False
            self._changed()


def return_outstanding(consumer: Any) -> None:
    """Return the message of an outstanding BRPOP, if there is one, to its list. For a consumer whose loop has ended.

    Otherwise it would be noticed only after all running attempts have ended.
    """
    consumer.task_consumer.cancel()
    channel = consumer.task_consumer.channel
    outstanding = channel._in_poll  # noqa: SLF001 - see above
    with suppress(Empty, *channel.connection_errors):
        if outstanding and outstanding.can_read(timeout=_ANSWER_SECONDS):
            channel._brpop_read()  # noqa: SLF001 - as kombu does when it closes the channel
