"""Publishes Celery messages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.message import HEADER_ENTERED, Message
from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.settings import RedisSettings

_SOCKET_TIMEOUT = 10
_BATCH = 500


@dataclass(frozen=True)
class Outgoing:
    """A message and when its attempt was entered in the ledger (ms, Redis' clock)."""

    message: Message
    entered_ms: int


class Publisher:
    """Publishes attempts. Synchronous and not thread-safe: use it from one thread.

    Publishing again is always harmless: the claim refuses the second delivery.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._app: Celery = make_app(settings, socket_timeout=_SOCKET_TIMEOUT)
        self._connection: Any = None
        self._producer: Any = None

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send a batch, in order.

        Raises:
            Unavailable: some, all or none were sent; the reconciler finds those that were not.
        """
        try:
            if self._producer is None:
                # Not from the app's pool: kombu shares that in the whole process, and once closed it stays closed.
                self._connection = self._app.connection_for_write()
                self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
            with self._producer.batch(_BATCH):
                for item in outgoing:
                    self._send(item)
        except (KombuError, RedisError, OSError) as error:
            self._drop()
            # A batch that failed says that alone; its cause is what Redis said.
            cause = error.__cause__ or error
            raise Unavailable(f"broker: {str(cause) or type(cause).__name__}", Dependency.REDIS) from error

    def _drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with suppress(KombuError, RedisError, OSError):
                connection.collect()

    def _send(self, item: Outgoing) -> None:
        message = item.message
        self._app.send_task(
            naming.CELERY_TASK,
            args=[message.model_dump(mode="json", by_alias=True)],
            task_id=message.member,
            queue=naming.broker_queue(message.namespace, message.queue),
            priority=naming.broker_priority(message.priority),
            headers={HEADER_ENTERED: item.entered_ms},
            argsrepr=message.member,
            kwargsrepr="",
            producer=self._producer,
            ignore_result=True,
            retry=False,
        )

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        self._app.close()
