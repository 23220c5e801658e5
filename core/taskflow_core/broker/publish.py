from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from taskflow_core.broker.app import make_app
from taskflow_core.domain import naming
from taskflow_core.domain.message import Message
from taskflow_core.errors import Unavailable
from taskflow_core.settings import RedisSettings

HEADER_ENTERED = "taskflow_entered_ms"
"""When the attempt was entered in the ledger, by Redis' clock."""
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

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send a batch, in order.

        Raises:
            Unavailable: some, all or none were sent; the reconciler finds those that were not.
        """
        try:
            with (
                self._app.producer_pool.acquire(block=True, timeout=_SOCKET_TIMEOUT) as producer,
                producer.batch(_BATCH),
            ):
                for item in outgoing:
                    self._send(producer, item)
        except (KombuError, OperationalError, OSError) as error:
            self._app.pool.force_close_all()
            raise Unavailable(f"broker: {str(error) or type(error).__name__}") from error

    def _send(self, producer: object, item: Outgoing) -> None:
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
            producer=producer,
            ignore_result=True,
            retry=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


def entered_ms(raw: str | None) -> int | None:
    """When the message in a Redis list was entered in the ledger; None for no message, or one that is not ours."""
    if raw is None:
        return None
    try:
        return int(json.loads(raw)["headers"][HEADER_ENTERED])
    except (ValueError, KeyError, TypeError):
        return None


def queue_lists(namespace: str, queues: Iterable[str]) -> list[str]:
    """Redis lists of all priorities of these queues."""
    return [naming.broker_list(namespace, queue, priority) for queue in queues for priority in (9, 6, 3, 0)]
