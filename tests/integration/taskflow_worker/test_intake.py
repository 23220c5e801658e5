"""A worker is told to take nothing more, and loses nothing of what it was about to take."""

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


def test_a_stopped_worker_ends_what_it_runs(workers: Workers, tmp_path: Path) -> None:
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


def test_of_a_burst_everything_runs_once_when_one_worker_is_stopped_in_the_middle(
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
    said = workers.quiet("a")
    workers.finished(burst)
    assert len(records(tmp_path / "record", "start")) == len(burst)
    assert [event.uid for event in workers.told(EventKind.STARTED, "a:") if event.time_ms > said.at_ms] == []
    assert len(workers.told(EventKind.STARTED, "b:")) > 20


def test_what_an_idle_worker_was_about_to_take_when_it_was_stopped_runs_once(workers: Workers) -> None:
    # A request for a message lasts a second, so the stop and the messages meet it at a different moment each time.
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
        said = workers.quiet("a")
        workers.finished(everything)
        assert [event.uid for event in workers.told(EventKind.STARTED, "a:") if event.time_ms > said.at_ms] == []
        workers.resume("a")
        workers.until("a", lambda report: report.serving)


def test_a_stop_holds_when_the_worker_lost_its_broker_meanwhile(workers: Workers) -> None:
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


def test_a_stop_holds_for_a_worker_that_starts_again_under_its_name(workers: Workers) -> None:
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


def test_a_worker_that_ends_as_told_takes_its_report_back(workers: Workers) -> None:
    process = workers.start("a")
    workers.stop("a")
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    seen = workers.seen()
    assert seen.reports == {}
    assert set(seen.intakes) == {"a"}


def test_a_message_that_reaches_a_worker_which_is_ending_is_back_in_its_list_at_once(
    workers: Workers, tmp_path: Path
) -> None:
    process = workers.start("a")
    gate = tmp_path / "gate"
    workers.send(["held"], "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(gate))
    workers.until("a", lambda report: report.busy == 1)
    later = _in_the_hands_of(workers, process)
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


def _in_the_hands_of(workers: Workers, process: subprocess.Popen[bytes]) -> str:
    """A message that Redis gave to this worker, which has not read it: its process is paused."""
    for number in range(20):
        uid = f"later-{number}"
        process.send_signal(signal.SIGSTOP)
        workers.send([uid])
        if workers.waiting() == 0:
            return uid
        # It had no request outstanding at that moment.
        process.send_signal(signal.SIGCONT)
        workers.finished([uid])
    raise AssertionError("the worker never had a request for a message outstanding")


def test_a_worker_that_gives_up_what_it_runs_takes_its_report_back(workers: Workers, tmp_path: Path) -> None:
    process = workers.start("a", drain_seconds=1)
    workers.send(["held"], "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(tmp_path / "gate"))
    workers.until("a", lambda report: report.busy == 1)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert [event.uid for event in workers.told(EventKind.RELEASED)] == ["held"]
    assert workers.seen().reports == {}
