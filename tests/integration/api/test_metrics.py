"""/metrics of the running API, on a port of its own."""

from __future__ import annotations

import subprocess

import pytest

from taskflow_local.programs import Resolver
from tests.integration.api.conftest import NAMESPACE, Installation

pytestmark = pytest.mark.integration
TASKS = f"/v1/namespaces/{NAMESPACE}/tasks"


def metrics(installation: Installation) -> str:
    answer = installation.http.request("GET", f"http://127.0.0.1:{installation.metrics_port}/metrics")
    assert answer.status == 200
    return answer.data.decode()


def value(text: str, series: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series))


def test_request_metrics_have_route_and_status(installation: Installation) -> None:
    series = (
        "http_server_request_duration_seconds_count"
        '{http_request_method="GET",http_response_status_code="%d",http_route="%s"}'
    )
    one = "/v1/namespaces/{namespace}/tasks/{name}"
    before = metrics(installation)
    installation.call("GET", f"{TASKS}/nobody-has-this-name")
    installation.call("GET", "/nowhere")
    installation.call("GET", TASKS, account="")
    installation.call("BREW", TASKS)
    after = metrics(installation)
    for status, route in ((404, one), (404, ""), (401, "")):
        assert value(after, series % (status, route)) == value(before, series % (status, route)) + 1
    assert "nobody-has-this-name" not in after
    assert "BREW" not in after


def test_cache_lookups_are_counted(installation: Installation) -> None:
    installation.mirror()
    installation.call("GET", f"{TASKS}?limit=7")
    before = metrics(installation)
    installation.call("GET", f"{TASKS}?limit=7")
    series = 'taskflow_cache_requests_total{result="hit"}'
    assert value(metrics(installation), series) == value(before, series) + 1


def test_the_port_of_the_api_has_no_metrics(installation: Installation) -> None:
    assert installation.call("GET", "/metrics").status == 404
    assert installation.call("GET", "/metrics", account="").status == 401


def test_promtool_accepts_the_metrics(installation: Installation) -> None:
    arguments = [str(Resolver().resolve("promtool")), "check", "metrics"]
    text = metrics(installation)
    assert "taskflow_streams_open" in text
    found = subprocess.run(arguments, input=text, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_it_has_started(installation: Installation) -> None:
    answer = installation.call("GET", "/startupz", account="")
    assert (answer.status, answer.json["status"]) == (200, "ok")
