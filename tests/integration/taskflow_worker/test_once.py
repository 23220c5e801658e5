"""A worker that runs one attempt and ends. The outcome is in the ledger, not in the exit code."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from taskflow_core.domain.events import EventKind
from tests.e2e.product import eventually, records
from tests.integration.taskflow_worker.process import KEYS, Workers

pytestmark = pytest.mark.integration


def start(workers: Workers, folder: Path) -> tuple[Path, Path]:
    """Start a worker and wait for its attempt. Returns (gate, record)."""
    gate, record = folder / "gate", folder / "record"
    workers.leave("u1", "e2e.wait_for_file", record=str(record), path=str(gate))
    workers.once("a", "u1")
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 1)
    return gate, record


@pytest.mark.parametrize(
    ("handler", "kind"),
    [("taskflow.echo", EventKind.SUCCEEDED), ("taskflow.fail", EventKind.FAILED), ("typo", EventKind.FAILED)],
)
def test_the_exit_code_is_0_whatever_the_outcome(workers: Workers, handler: str, kind: EventKind) -> None:
    workers.leave("u1", handler)
    assert workers.once("a", "u1").wait(60) == 0
    assert [event.uid for event in workers.told(EventKind.STARTED, "a:")] == ["u1"]
    assert [event.uid for event in workers.told(kind, "a:")] == ["u1"]
    assert workers.raw.zcard(KEYS.leases) == 0


def test_it_takes_no_other_message(workers: Workers) -> None:
    workers.send(["other"])
    workers.leave("u1")
    assert workers.once("a", "u1").wait(60) == 0
    assert workers.waiting() == 1
    assert workers.seen().reports == {}


def test_without_a_message_it_fails(workers: Workers) -> None:
    assert workers.once("a", "nobody").wait(60) == 1
    assert b"there is no message" in workers.log("a").read_bytes()


def test_an_attempt_that_another_worker_has_claimed_is_refused(workers: Workers) -> None:
    workers.leave("u1")
    assert workers.once("a", "u1").wait(60) == 0
    assert workers.once("b", "u1").wait(60) == 0
    assert [event.worker.partition(":")[0] for event in workers.told(EventKind.DUPLICATE)] == ["b"]
    assert len(workers.told(EventKind.SUCCEEDED)) == 1


def test_a_short_attempt_ends_within_the_drain_period(workers: Workers, tmp_path: Path) -> None:
    gate, _ = start(workers, tmp_path)
    (process,) = workers.processes
    process.send_signal(signal.SIGTERM)
    gate.touch()
    assert process.wait(60) == 0
    assert len(workers.told(EventKind.SUCCEEDED)) == 1


def test_a_long_attempt_is_released_after_the_drain_period(workers: Workers, tmp_path: Path) -> None:
    _, record = start(workers, tmp_path)
    (process,) = workers.processes
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert len(workers.told(EventKind.RELEASED)) == 1
    assert workers.told(EventKind.LOST) == []
    assert records(record, "end") == []


def test_the_death_of_the_child_is_reported_at_once(workers: Workers, tmp_path: Path) -> None:
    _, record = start(workers, tmp_path)
    os.kill(records(record, "start")[0]["pid"], signal.SIGKILL)
    (process,) = workers.processes
    assert process.wait(60) == 0
    (lost,) = workers.told(EventKind.LOST)
    assert "signal 9" in lost.payload["message"]
