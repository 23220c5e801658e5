"""`external.metrics.k8s.io` served from the operator's own /metrics: the part of Prometheus and its adapter in a
test.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client.parser import text_string_to_metric_families

GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
ROOT = f"/apis/{VERSION}"


def values(metrics: str, name: str, selector: dict[str, str]) -> list[dict[str, Any]]:
    """The series of a metric that have these labels, as ExternalMetricValues."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        {
            "metricName": name,
            "metricLabels": dict(sample.labels),
            "timestamp": now,
            "value": f"{round(sample.value * 1000)}m",
        }
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name and selector.items() <= sample.labels.items()
    ]


def answer(target: str, metrics_url: str) -> dict[str, Any] | None:
    """What this API says to a GET; None for a path it does not have."""
    address = urlsplit(target)
    if address.path == ROOT:
        resource = {"name": "*", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList"}
        found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION}
        return found | {"resources": [resource | {"verbs": ["get"]}]}
    match address.path.removeprefix(f"{ROOT}/").split("/"):
        case ["namespaces", _, name]:
            pairs = parse_qs(address.query).get("labelSelector", [""])[0].split(",")
            selector = dict(pair.split("=", 1) for pair in pairs if pair)
            with urllib.request.urlopen(metrics_url, timeout=10) as response:
                items = values(response.read().decode(), name, selector)
            return {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": items}
        case _:
            return None


@contextmanager
def serving(metrics_url: str, pki: Path) -> Iterator[int]:
    """The port of a server that only the API server may ask: it shows the certificate of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answer(self.path, metrics_url)
            body = json.dumps(
                found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
            ).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def registration(port: int) -> list[dict[str, Any]]:
    """The objects by which an API server finds that port on its own machine."""
    service = {"name": "metrics-adapter", "namespace": "default", "port": port}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "metrics-adapter"},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1beta1.{GROUP}"},
            "spec": {
                "group": GROUP,
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                # The stack's certificate is not for the name of a Service.
                "insecureSkipTLSVerify": True,
                "service": service,
            },
        },
    ]
