"""Spans of attempts, if OpenTelemetry is installed and an endpoint is set; otherwise nothing, at no cost.

A span is written once, when its attempt has ended, from the times that were kept: an operator that is started again
loses none that is still open. Its trace is the Task's `taskflow.dev/traceparent`. Its id follows from Task and attempt,
so that the next attempt can link to it without anybody having kept it, and an end that is told twice is one span. The
messaging conventions of OpenTelemetry are still in development; their names stand here only.
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from taskflow_core.telemetry.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor

log = get_logger(__name__)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""OpenTelemetry's own variable: where spans go. The exporter reads this and its other `OTEL_` variables itself."""


@dataclass(frozen=True)
class AttemptSpan:
    """What is known of an attempt at its end; times in milliseconds of the epoch."""

    traceparent: str
    namespace: str
    task: str
    uid: str
    attempt: int
    queue: str
    handler: str
    worker: str
    outcome: str
    reason: str
    message: str
    queued_ms: int | None
    started_ms: int | None
    ended_ms: int

    @property
    def succeeded(self) -> bool:
        """It is no error."""
        return self.outcome == "succeeded"


class Tracing(Protocol):
    """Where spans go."""

    def attempt(self, span: AttemptSpan) -> None:
        """An attempt ended. Never blocks, never raises."""

    def close(self) -> None:
        """Send what is left; may take seconds."""


class NoTracing:
    """Spans are not wanted."""

    def attempt(self, span: AttemptSpan) -> None:
        """Forget it."""

    def close(self) -> None:
        """There is nothing left."""


def setup_tracing(component: str) -> Tracing:
    """Spans go to the OTLP endpoint of the environment; nowhere if there is none, or the extra `otel` is not
    installed.
    """
    if not os.environ.get(ENDPOINT):
        return NoTracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        log.warning(
            "tracing_off", why=f"{ENDPOINT} is set, but a package is missing: {error}; install the extra 'otel'"
        )
        return NoTracing()
    return OpenTelemetry(component, BatchSpanProcessor(OTLPSpanExporter()))


class OpenTelemetry:
    """Spans go to OpenTelemetry's SDK.

    Args:
        component: name of the service.
        processor: takes the spans.
    """

    def __init__(self, component: str, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

        class Chosen(RandomIdGenerator):
            """The SDK asks here for the id of a span that it starts."""

            span = 0

            def generate_span_id(self) -> int:
                return self.span

        self._ids = Chosen()
        resource = Resource.create({"service.name": f"taskflow-{component}"})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("taskflow")

    def attempt(self, span: AttemptSpan) -> None:
        """One consumer span from the queue to the end; an event marks where the worker took it. A retry links to what
        it repeats.
        """
        from opentelemetry import trace  # noqa: PLC0415

        begin = next(ms for ms in (span.queued_ms, span.started_ms, span.ended_ms) if ms is not None)
        attributes: dict[str, str | int] = {
            "messaging.system": "taskflow",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": span.queue,
            "messaging.message.id": f"{span.uid}:{span.attempt}",
            "taskflow.task": f"{span.namespace}/{span.task}",
            "taskflow.uid": span.uid,
            "taskflow.attempt": span.attempt,
            "taskflow.handler": span.handler,
            "taskflow.worker": span.worker,
            "taskflow.outcome": span.outcome,
            "taskflow.reason": span.reason,
        }
        parent = _parent(span.traceparent)
        trace_id = trace.get_current_span(parent).get_span_context().trace_id
        links = []
        if span.attempt > 1:
            former = trace.SpanContext(trace_id, _span_id(span.uid, span.attempt - 1), is_remote=True)
            links.append(trace.Link(former, {"taskflow.attempt": span.attempt - 1}))
        self._ids.span = _span_id(span.uid, span.attempt)
        made = self._tracer.start_span(
            f"process {span.handler}",
            context=parent,
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            start_time=begin * 1_000_000,
        )
        if span.started_ms is not None:
            made.add_event("started", timestamp=span.started_ms * 1_000_000)
        if not span.succeeded:
            made.set_status(trace.StatusCode.ERROR, span.message[:200])
            made.set_attribute("error.type", span.reason)
        made.end(max(span.ended_ms, begin) * 1_000_000)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _span_id(uid: str, attempt: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{uid}:{attempt}".encode()).digest()[:8], "big")


def _parent(traceparent: str) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
