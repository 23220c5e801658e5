"""What becomes of processes in workers of other kinds, and in one whose main process misbehaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Reason
from tests.e2e.product import eventually, records
from tests.integration.taskflow_worker.process import PROCESS_HANDLERS, Workers, alive, left

pytestmark = pytest.mark.integration


@pytest.fixture
def worker(workers: Workers) -> Workers:
    workers.environment |= PROCESS_HANDLERS
    return workers


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where `processes.leave` writes what it started."""
    path = tmp_path / "pids"
    yield path
    for pid in left(path):
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_a_handler_in_a_thread_forks_ends_there(worker: Workers, tmp_path: Path) -> None:
    worker.start("a", concurrency=1, pool_kind="Threads")
    assert worker.run("forks", "processes.fork_and_return", how="return") == "parent 0"
    worker.finished(["forks"])
    assert worker.told(EventKind.STALE) == []
    assert worker.told(EventKind.PROGRESS) == []
    worker.send(["later"], "e2e.recorded_sleep", record=str(tmp_path / "record"), seconds=0)
    worker.finished(["later"])
    worker.until("a", lambda report: report.busy == 0 and report.serving)


def test_an_attempt_of_its_own_pod_is_not_told_by_a_forked_process(worker: Workers) -> None:
    worker.leave("u1", "processes.fork_and_return", how="return")
    assert worker.once("a", "u1").wait(60) == 0
    assert worker.result("u1") == "parent 0"
    assert worker.told(EventKind.STALE) == []


def test_what_an_attempt_of_its_own_pod_started_ends_with_it(worker: Workers, pids: Path) -> None:
    worker.leave("u1", "processes.leave", pids=str(pids), wait=True)
    process = worker.once("a", "u1")
    eventually(pids.with_suffix(".ready").exists, lambda ready: ready, 120)
    worker.cancel("u1")
    assert process.wait(60) == 0
    assert len(pids.read_text().split()) == 3
    assert left(pids) == []


def test_in_a_pool_of_threads_what_the_handlers_own_thread_started_ends_with_it(worker: Workers, pids: Path) -> None:
    worker.start("a", concurrency=2, pool_kind="Threads")
    worker.send(["leaves"], "processes.leave", pids=str(pids))
    worker.finished(["leaves"])
    plain, session, orphan = map(int, pids.read_text().split())
    assert [alive(pid) for pid in (plain, session)] == [False, False]
    # Nobody can tell whose that is: it ends with the pod.
    assert alive(orphan)


def test_a_pool_process_that_somebody_else_waited_for_is_replaced(worker: Workers, tmp_path: Path) -> None:
    """A module that a worker imports waits for whatever child ends, as some supervisors of programs do."""
    worker.environment["TASKFLOW_WORKER_HANDLERS"] = "e2e_handlers,e2e_processes,e2e_reaper"
    main = worker.start("a", concurrency=1)
    record = tmp_path / "record"
    worker.send(["held"], "e2e.wait_for_file", record=str(record), path=str(tmp_path / "never"))
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 1)
    os.kill(records(record, "start")[0]["pid"], signal.SIGKILL)
    assert worker.failure(EventKind.LOST, "held").reason is Reason.WORKER_LOST
    worker.until("a", lambda report: report.busy == 0)
    worker.send(["next"])
    worker.succeeded("next")
    assert main.poll() is None
