"""The intake of a worker: stop requests, shutdown, and messages that race with them."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.domain.events import EventKind
from tests.e2e.product import eventually, records
from tests.integration.taskflow_worker.process import Workers

pytestmark = pytest.mark.integration


def uids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def test_a_worker_reports_what_it_serves_and_runs(workers: Workers, tmp_path: Path) -> None:
    workers.start("a", concurrency=3)
    idle = workers.until("a", lambda report: report.serving)
    assert (idle.namespace, idle.queues, idle.slots) == ("team-a", ("default",), 3)
    assert (idle.busy, idle.claimed_ms) == (0, None)
    gate = tmp_path / "gate"
    since = workers.seen().now_ms
    workers.send(uids("held", 2), "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(gate))
    busy = workers.until("a", lambda report: report.busy == 2)
    assert busy.claimed_ms is not None
    assert since - 100 <= busy.claimed_ms <= busy.at_ms
    gate.touch()
    assert workers.until("a", lambda report: report.busy == 0).claimed_ms is not None
    workers.finished(uids("held", 2))


def test_an_idle_worker_that_is_stopped_takes_nothing_until_it_is_resumed(workers: Workers) -> None:
    workers.start("a")
    workers.until("a", lambda report: report.serving)
    workers.stop("a")
    workers.quiet("a")
    workers.send(["later"])
    workers.goes_on("a")
    assert workers.waiting() == 1
    assert workers.told(EventKind.STARTED) == []
    workers.resume("a")
    workers.finished(["later"])
    assert workers.until("a", lambda report: report.claimed_ms is not None).serving


def test_a_stopped_worker_finishes_its_running_attempt(workers: Workers, tmp_path: Path) -> None:
    workers.start("a")
    gate = tmp_path / "gate"
    workers.send(["held"], "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(gate))
    eventually(lambda: records(tmp_path / "record", "start"), lambda starts: len(starts) == 1)
    workers.stop("a")
    assert workers.until("a", lambda report: not report.serving).busy == 1
    workers.send(["later"])
    gate.touch()
    workers.quiet("a")
    workers.goes_on("a")
    assert workers.waiting() == 1
    workers.resume("a")
    workers.finished(["held", "later"])


def test_every_attempt_of_a_burst_runs_once_if_a_worker_is_stopped_in_the_middle(
    workers: Workers, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        workers.start(name)
    burst = uids("burst", 600)
    work: dict[str, Any] = {"record": str(tmp_path / "record"), "seconds": 0.002}
    workers.send(burst[:400], "e2e.recorded_sleep", **work)
    eventually(lambda: workers.told(EventKind.STARTED, "a:"), lambda starts: len(starts) > 20)
    workers.stop("a")
    workers.send(burst[400:], "e2e.recorded_sleep", **work)
    quiet = workers.quiet("a")
    workers.finished(burst)
    assert len(records(tmp_path / "record", "start")) == len(burst)
    assert [event.uid for event in workers.told(EventKind.STARTED, "a:") if event.time_ms > quiet.at_ms] == []
    assert len(workers.told(EventKind.STARTED, "b:")) > 20


def test_a_message_that_races_with_a_stop_request_runs_once(workers: Workers) -> None:
    # A request for a message lasts a second: the random delay lets stop and messages meet it at different moments.
    moment = random.Random(7)
    for name in ("a", "b"):
        workers.start(name)
        workers.until(name, lambda report: report.serving)
    everything: list[str] = []
    for lap in range(12):
        workers.stop("a")
        workers.passes(moment.uniform(0, 2))
        batch = uids(f"lap-{lap}", 8)
        everything += batch
        workers.send(batch)
        quiet = workers.quiet("a")
        workers.finished(everything)
        assert [event.uid for event in workers.told(EventKind.STARTED, "a:") if event.time_ms > quiet.at_ms] == []
        workers.resume("a")
        workers.until("a", lambda report: report.serving)


def test_a_stop_request_survives_a_lost_broker_connection(workers: Workers) -> None:
    workers.start("a")
    workers.until("a", lambda report: report.serving)
    workers.stop("a")
    workers.raw.client_kill_filter(_type="normal", skipme=True)
    eventually(workers.log("a").read_text, lambda text: "Connection to broker lost" in text)
    workers.quiet("a")
    workers.send(["later"])
    workers.goes_on("a")
    assert workers.waiting() == 1
    workers.raw.client_kill_filter(_type="normal", skipme=True)
    workers.goes_on("a")
    assert workers.waiting() == 1
    workers.resume("a")
    workers.finished(["later"])


def test_a_stop_request_holds_for_a_restarted_worker_of_the_same_name(workers: Workers) -> None:
    process = workers.start("a")
    workers.until("a", lambda report: report.serving)
    workers.stop("a")
    process.kill()
    process.wait()
    workers.send(["later"])
    workers.start("a")
    workers.quiet("a")
    workers.goes_on("a")
    assert workers.waiting() == 1
    workers.resume("a")
    workers.finished(["later"])


def test_a_worker_withdraws_its_report_on_shutdown(workers: Workers) -> None:
    process = workers.start("a")
    workers.stop("a")
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    seen = workers.seen()
    assert seen.reports == {}
    assert {worker.name for worker in seen.intakes} == {"a"}


def test_a_message_that_reaches_a_stopping_worker_returns_to_its_list_at_once(workers: Workers, tmp_path: Path) -> None:
    process = workers.start("a")
    gate = tmp_path / "gate"
    workers.send(["held"], "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(gate))
    workers.until("a", lambda report: report.busy == 1)
    later = _delivered_but_not_read(workers, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    eventually(workers.waiting, lambda count: count == 1, 5)
    since = workers.seen().now_ms
    assert workers.until("a", lambda report: report.at_ms > since).busy == 1
    assert process.poll() is None
    gate.touch()
    process.wait(20)
    workers.start("b")
    workers.finished(["held", later])


def _delivered_but_not_read(workers: Workers, process: subprocess.Popen[bytes]) -> str:
    """Deliver a message to this worker that it cannot read: its process is paused. Returns the uid."""
    for number in range(20):
        uid = f"later-{number}"
        eventually(lambda: workers.raw.info("clients")["blocked_clients"], lambda count: count == 1)
        process.send_signal(signal.SIGSTOP)
        workers.send([uid])
        if workers.waiting() == 0:
            return uid
        # The request ended just before the pause. Not `finished`, which waits until every message is acknowledged:
        # the attempt in the other slot is still running.
        process.send_signal(signal.SIGCONT)
        workers.succeeded(uid)
    raise AssertionError("the worker never had a request for a message outstanding")


def test_a_worker_that_releases_its_attempts_withdraws_its_report(workers: Workers, tmp_path: Path) -> None:
    process = workers.start("a", drain_seconds=1)
    workers.send(["held"], "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(tmp_path / "gate"))
    workers.until("a", lambda report: report.busy == 1)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert [event.uid for event in workers.told(EventKind.RELEASED)] == ["held"]
    assert workers.seen().reports == {}
