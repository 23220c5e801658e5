"""Measures how long attempts wait and run."""

from __future__ import annotations

from dataclasses import dataclass

from taskflow_core.domain.events import ENDS, Event, EventKind
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Task
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.tracing import AttemptSpan, Tracing

_REASONS = {EventKind.SUCCEEDED: Reason.SUCCEEDED, EventKind.AGAIN: Reason.AGAIN}
"""Of the ends whose payload has none."""


@dataclass
class _Times:
    attempt: int
    queued_ms: int | None = None
    started_ms: int | None = None


class AttemptTimes:
    """When the current attempts were queued and started, by Redis' clock. Their durations go to metrics and trace
    spans.

    Kept in memory only: the wait of an attempt that a former operator saw begin is unknown and not counted.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._times: dict[str, _Times] = {}

    def queued(self, task: Task, time_ms: int) -> None:
        """The Task's current attempt entered its queue."""
        times = self._of(task.uid, task.status.attempt)
        times.queued_ms = times.queued_ms or time_ms

    def _of(self, uid: str, attempt: int) -> _Times:
        times = self._times.get(uid)
        if times is None or times.attempt != attempt:
            times = self._times[uid] = _Times(attempt)
        return times

    def note(self, task: Task, event: Event) -> None:
        """Record an event of the Task's current attempt."""
        times = self._of(task.uid, event.attempt)
        if event.kind is EventKind.STARTED:
            self._started(task, event, times)
        elif event.kind in ENDS:
            self._ended(task, event, times)
            del self._times[task.uid]

    def forget(self, task: Task) -> None:
        """The Task is closed."""
        self._times.pop(task.uid, None)

    def _started(self, task: Task, event: Event, times: _Times) -> None:
        if times.started_ms is not None:
            return
        times.started_ms = event.time_ms
        queue = metrics.queue_label(task.spec.queue)
        if event.attempt == 1:
            latency = max(event.time_ms / 1000 - task.created.timestamp(), 0)
            metrics.START_LATENCY.labels(queue=queue).observe(latency)
        if times.queued_ms is not None:
            wait = max(event.time_ms - times.queued_ms, 0) / 1000
            metrics.QUEUE_WAIT.labels(queue=queue, priority=str(task.spec.priority)).observe(wait)

    def _ended(self, task: Task, event: Event, times: _Times) -> None:
        reason = _REASONS.get(event.kind) or Reason(event.payload["reason"])
        queue, handler = metrics.queue_label(task.spec.queue), metrics.handler_label(task.spec.handler)
        metrics.ATTEMPTS.labels(queue=queue, reason=reason.value).inc()
        started = times.started_ms
        run_ms = event.payload.get("run_ms") or event.payload.get("runMs") or 0
        if started is None and run_ms:
            # Not before its Task, whatever the worker says.
            started = max(event.time_ms - int(run_ms), int(task.created.timestamp() * 1000))
        if started is not None:
            seconds = max(event.time_ms - started, 0) / 1000
            metrics.RUN.labels(queue=queue, handler=handler, outcome=event.kind.value).observe(seconds)
        self._tracing.attempt(
            AttemptSpan(
                traceparent=task.traceparent,
                namespace=task.namespace,
                task=task.name,
                uid=task.uid,
                attempt=event.attempt,
                queue=task.spec.queue,
                handler=task.spec.handler,
                worker=event.worker,
                outcome=event.kind.value,
                reason=reason.value,
                message=str(event.payload.get("message") or ""),
                queued_ms=times.queued_ms,
                started_ms=started,
                ended_ms=event.time_ms,
            )
        )
