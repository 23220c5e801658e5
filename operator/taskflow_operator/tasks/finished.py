"""Tells subscribers that a Task needs no more work."""

from __future__ import annotations

from collections.abc import Callable

from taskflow_core.domain.task import Task
from taskflow_core.telemetry import metrics

Subscriber = Callable[[Task], None]


class Finished:
    """Publishes Tasks whose end is written to the resource, and Tasks whose resource is gone.

    Controllers that have to know subscribe when they are assembled.
    """

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call it with each Task that needs no more work. It must not raise."""
        self._subscribers.append(subscriber)

    def publish(self, task: Task) -> None:
        """The Task finished, or its resource is gone."""
        for subscriber in self._subscribers:
            subscriber(task)


def count_finished(task: Task) -> None:
    """The subscriber that counts in metrics."""
    status = task.status
    if not task.finished or status.phase is None:
        return
    queue, handler = metrics.queue_label(task.spec.queue), metrics.handler_label(task.spec.handler)
    outcome = status.phase.value
    metrics.FINISHED.labels(namespace=task.namespace, queue=queue, handler=handler, outcome=outcome).inc()
    if status.completion_time is not None:
        seconds = max((status.completion_time - task.created).total_seconds(), 0)
        metrics.TOTAL.labels(queue=queue, handler=handler, outcome=outcome).observe(seconds)
