"""Publishes Celery messages of attempts that are in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain.task import Task
from taskflow_operator.tasks.messages import message_of
from taskflow_operator.tasks.ports import EnteredAttempt, MessagePublisher
from taskflow_operator.tasks.rules.decision import Pools

WAITING_MESSAGE = "waits for a free worker"


class MessageQueue:
    """The broker, used from one thread because kombu's connection belongs to one.

    Args:
        publisher: the broker.
        queued: called when something is about to be queued.
    """

    def __init__(self, publisher: MessagePublisher, queued: Callable[[], None]) -> None:
        self._publisher = publisher
        self._queued = queued
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self.in_order = asyncio.Lock()
        """Held from the ledger to the queue: a lost message is found by comparing the order of both."""

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages of attempts that are in the ledger.

        Raises:
            Unavailable: some, all or none were sent.
        """
        self._queued()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._publisher.publish, messages)

    def close(self) -> None:
        """Let the running publication end."""
        self._thread.shutdown(wait=True)


class WarmWorkers:
    """Starts attempts by a message that any free worker of the queue takes.

    Args:
        queue: the broker.
        pools: why no worker takes anything now.
        token_key: from which the token of each attempt is derived.
    """

    def __init__(self, queue: MessageQueue, pools: Pools, token_key: str) -> None:
        self._queue = queue
        self._pools = pools
        self._token_key = token_key

    async def start(self, attempts: Sequence[EnteredAttempt]) -> None:
        """Publish the messages.

        Raises:
            Unavailable: some, all or none were sent; the reconciler finds those that were not.
        """
        await self._queue.send([Outgoing(message_of(each.task, self._token_key), each.entered_ms) for each in attempts])

    def waiting_message(self, task: Task) -> str:
        """Why no pool takes it now, or that workers are busy."""
        return self._pools.blocked(task.namespace, task.spec.queue) or WAITING_MESSAGE
