from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from taskflow_core.domain.events import EventKind
from taskflow_core.telemetry.logs import trace_id
from taskflow_core.telemetry.tracing import ENDPOINT, AttemptSpan, NoTracing, OpenTelemetry, setup_tracing
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.tasks.attempt_times import AttemptTimes
from tests.unit.taskflow_operator.builders import CREATED_MS, make_event, make_task

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    def __init__(self) -> None:
        self.spans: list[AttemptSpan] = []

    def attempt(self, span: AttemptSpan) -> None:
        self.spans.append(span)

    def close(self) -> None:
        return


def test_an_attempt_is_one_span_from_the_queue_to_its_end_in_the_trace_of_its_task() -> None:
    exporter = InMemorySpanExporter()
    tracing = OpenTelemetry("operator", SimpleSpanProcessor(exporter))
    times = AttemptTimes(tracing)
    task = make_task(queue="q").model_copy(update={"annotated_traceparent": PARENT})
    times.queued(task, CREATED_MS + 100)
    for event in (
        make_event(EventKind.STARTED, 350),
        make_event(EventKind.SUCCEEDED, 1350, runMs=990),
    ):
        times.note(task, event)
    (span,) = exporter.get_finished_spans()
    assert span.name == "process h"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.start_time == (CREATED_MS + 100) * 1_000_000
    assert span.end_time == (CREATED_MS + 1350) * 1_000_000
    assert [(e.name, e.timestamp) for e in span.events] == [("started", (CREATED_MS + 350) * 1_000_000)]
    assert span.attributes is not None
    assert span.attributes["messaging.destination.name"] == "q"
    assert span.attributes["taskflow.attempt"] == 1
    assert span.status.is_unset


def test_each_attempt_has_a_span_and_a_failed_one_is_an_error_with_its_reason() -> None:
    exporter = InMemorySpanExporter()
    times = AttemptTimes(OpenTelemetry("operator", SimpleSpanProcessor(exporter)))
    task = make_task()
    for attempt in (1, 2):
        times.note(task, make_event(EventKind.STARTED, 10 * attempt, attempt=attempt))
        times.note(
            task, make_event(EventKind.FAILED, 10 * attempt + 5, attempt=attempt, reason="HandlerError", message="no")
        )
    spans = exporter.get_finished_spans()
    assert [span.attributes and span.attributes["taskflow.attempt"] for span in spans] == [1, 2]
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    assert all(not span.status.is_ok and span.status.description == "no" for span in spans)
    assert all(span.attributes and span.attributes["error.type"] == "HandlerError" for span in spans)


def test_a_retry_links_to_the_attempt_that_it_repeats_even_after_a_restart() -> None:
    task = make_task().model_copy(update={"annotated_traceparent": PARENT})
    spans: list[ReadableSpan] = []
    for attempt in (1, 2, 3):
        # An operator of its own for each attempt: nothing is carried over but the Task.
        exporter = InMemorySpanExporter()
        times = AttemptTimes(OpenTelemetry("operator", SimpleSpanProcessor(exporter)))
        times.note(task, make_event(EventKind.FAILED, attempt, attempt=attempt, reason="HandlerError", message="no"))
        spans += exporter.get_finished_spans()
    assert [len(span.links) for span in spans] == [0, 1, 1]
    for former, span in pairwise(spans):
        assert former.context is not None
        assert span.links[0].context.span_id == former.context.span_id
        assert span.links[0].context.trace_id == former.context.trace_id
    assert len({span.context.span_id for span in spans if span.context}) == 3


def test_an_end_that_is_told_twice_is_one_span() -> None:
    exporter = InMemorySpanExporter()
    times = AttemptTimes(OpenTelemetry("operator", SimpleSpanProcessor(exporter)))
    for _ in range(2):
        times.note(make_task(), make_event(EventKind.SUCCEEDED, 5, runMs=1))
    assert len({span.context.span_id for span in exporter.get_finished_spans() if span.context}) == 1


def test_a_span_is_written_even_if_only_the_end_was_seen() -> None:
    recorder = Recorder()
    AttemptTimes(recorder).note(make_task(), make_event(EventKind.SUCCEEDED, 5000, run_ms=2000))
    (span,) = recorder.spans
    assert (span.queued_ms, span.started_ms, span.ended_ms) == (None, CREATED_MS + 3000, CREATED_MS + 5000)


def test_without_an_endpoint_nothing_is_set_up_and_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with capture_logs() as logs:
        assert isinstance(setup_tracing("operator"), NoTracing)
    assert logs == []


def test_a_missing_package_is_said_and_the_operator_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with capture_logs() as logs:
        assert isinstance(setup_tracing("operator"), NoTracing)
    assert logs[0]["event"] == "tracing_off"
    assert "install the extra 'otel'" in logs[0]["why"]


def test_log_lines_carry_uid_attempt_and_trace() -> None:
    task = make_task().model_copy(update={"annotated_traceparent": PARENT})
    assert log_fields(task) == {
        "task": "team/task-u1",
        "uid": "u1",
        "attempt": 1,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    # One that nobody annotated has a trace as well, the same after every restart.
    assert log_fields(make_task())["trace_id"] == trace_id(make_task().traceparent) is not None
