from __future__ import annotations

from collections.abc import Callable

from taskflow_core.domain.task import Task
from taskflow_core.telemetry import metrics
from taskflow_operator.runtime.event_recorder import EventRecorder
from taskflow_operator.tasks.attempt_times import AttemptTimes


class Finished:
    """Tells everybody whom it concerns that a Task needs no more work, once that stands in the resource."""

    def __init__(
        self,
        times: AttemptTimes,
        events: EventRecorder,
        retention: Callable[[Task], None],
        arrays: Callable[[Task], None],
    ) -> None:
        self._times = times
        self._events = events
        self._retention = retention
        self._arrays = arrays

    def __call__(self, task: Task) -> None:
        """The Task finished, or its resource is gone."""
        self._times.forget(task.uid)
        status = task.status
        if task.finished and status.phase is not None:
            queue, handler = metrics.queue_label(task.spec.queue), metrics.handler_label(task.spec.handler)
            outcome = status.phase.value
            metrics.FINISHED.labels(namespace=task.namespace, queue=queue, handler=handler, outcome=outcome).inc()
            if status.completion_time is not None:
                seconds = max((status.completion_time - task.created).total_seconds(), 0)
                metrics.TOTAL.labels(queue=queue, handler=handler, outcome=outcome).observe(seconds)
            self._events.failed(task)
        self._retention(task)
        self._arrays(task)
