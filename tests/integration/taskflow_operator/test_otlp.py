"""Spans as a collector gets them: OTLP over HTTP, read with OpenTelemetry's own protocol buffers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from taskflow_core.domain.events import EventKind
from taskflow_core.telemetry.tracing import ENDPOINT, OpenTelemetry, setup_tracing
from taskflow_operator.tasks.attempt_times import AttemptTimes
from tests.unit.taskflow_operator.builders import CREATED_MS, make_event, make_task

pytestmark = pytest.mark.integration

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Collector:
    url: str = ""
    services: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)

    def take(self, path: str, content_type: str, body: bytes) -> None:
        assert (path, content_type) == ("/v1/traces", "application/x-protobuf")
        request = ExportTraceServiceRequest.FromString(body)
        for each in request.resource_spans:
            self.services |= {kv.value.string_value for kv in each.resource.attributes if kv.key == "service.name"}
            for scope in each.scope_spans:
                self.spans += scope.spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.take(self.path, self.headers["Content-Type"], body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_a_collector_gets_each_attempt_with_its_link(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, collector.url)
    tracing = setup_tracing("operator")
    assert isinstance(tracing, OpenTelemetry)
    times = AttemptTimes(tracing)
    task = make_task(queue="q").model_copy(update={"annotated_traceparent": PARENT})
    times.note(task, make_event(EventKind.STARTED, 10))
    times.note(task, make_event(EventKind.FAILED, 20, reason="HandlerError", message="no luck"))
    times.note(task, make_event(EventKind.STARTED, 30, attempt=2))
    times.note(task, make_event(EventKind.SUCCEEDED, 45, attempt=2, runMs=15))
    tracing.close()
    assert collector.services == {"taskflow-operator"}
    first, second = collector.spans
    assert {span.trace_id.hex() for span in (first, second)} == {PARENT.split("-")[1]}
    assert {span.parent_span_id.hex() for span in (first, second)} == {PARENT.split("-")[2]}
    assert (first.status.code, first.status.message) == (Status.STATUS_CODE_ERROR, "no luck")
    assert second.status.code == Status.STATUS_CODE_UNSET
    assert [link.span_id for link in second.links] == [first.span_id]
    assert not first.links
    assert second.start_time_unix_nano == (CREATED_MS + 30) * 1_000_000
    assert second.end_time_unix_nano == (CREATED_MS + 45) * 1_000_000
    assert second.kind == Span.SPAN_KIND_CONSUMER
