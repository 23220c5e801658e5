"""What handlers do to their process, and what must not come of it: real worker processes on a real Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from tests.e2e.product import eventually, records
from tests.integration.taskflow_worker.process import KEYS, Workers

pytestmark = pytest.mark.integration


@pytest.fixture
def worker(workers: Workers) -> Workers:
    workers.environment |= {
        "TASKFLOW_WORKER_HANDLERS": "e2e_handlers,e2e_processes",
        "TASKFLOW_WORKER_LEASE_SECONDS": "6",
        "TASKFLOW_WORKER_STOP_GRACE_SECONDS": "1",
    }
    return workers


def result(workers: Workers, uid: str) -> Any:
    workers.succeeded(uid)
    (event,) = [event for event in workers.told(EventKind.SUCCEEDED) if event.uid == uid]
    return event.payload.get("result")


def run(workers: Workers, uid: str, handler: str, **kwargs: Any) -> Any:
    workers.send([uid], handler, **kwargs)
    return result(workers, uid)


def failure(workers: Workers, kind: EventKind, uid: str) -> Failure:
    told = eventually(lambda: {event.uid: event for event in workers.told(kind)}, lambda found: uid in found)
    return Failure.model_validate(told[uid].payload)


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where `processes.leave` writes what it started."""
    path = tmp_path / "pids"
    yield path
    for pid in left(path) if path.exists() else []:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def left(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split() if alive(int(pid))]


@pytest.mark.parametrize("pool", ["Prefork", "Threads"])
@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 7)])
def test_a_forked_process_that_leaves_the_handler_ends_there(
    worker: Workers, tmp_path: Path, pool: str, how: str, code: int
) -> None:
    worker.start("a", concurrency=1, pool_kind=pool)
    assert run(worker, "forks", "processes.fork_and_return", how=how) == f"parent {code}"
    worker.finished(["forks"])
    assert [event.uid for event in worker.told(EventKind.STALE)] == []
    assert worker.told(EventKind.PROGRESS) == []
    # Only one process runs Tasks, and it can still be used.
    records_of = tmp_path / "record"
    worker.send([f"later-{number}" for number in range(6)], "e2e.recorded_sleep", record=str(records_of), seconds=0.05)
    worker.finished([f"later-{number}" for number in range(6)])
    assert [line["what"] for line in records(records_of, "start")] == ["start"] * 6
    worker.until("a", lambda report: report.busy == 0 and report.serving)


def test_a_process_that_a_coroutine_forks_ends_there(worker: Workers) -> None:
    worker.start("a", concurrency=1)
    assert run(worker, "forks", "processes.fork_in_coroutine") == "parent"
    worker.finished(["forks"])


def test_an_attempt_of_its_own_pod_is_not_told_by_a_forked_process(worker: Workers) -> None:
    worker.leave("u1", "processes.fork_and_return", how="return")
    assert worker.once("a", "u1").wait(60) == 0
    assert result(worker, "u1") == "parent 0"
    assert worker.told(EventKind.STALE) == []


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_handler_may_use_processes(worker: Workers, method: str) -> None:
    worker.start("a", concurrency=1)
    for uid in ("first", "second"):
        assert run(worker, uid, "processes.parallel", method=method) == [0, 1, 4] * 2


def test_programs_and_processes_of_a_handler_can_be_interrupted(worker: Workers) -> None:
    worker.start("a", concurrency=1)
    # Python ends with 130 - 128 as a signal, or as an exit code of a shell.
    assert run(worker, "signals", "processes.interruptible") == [-signal.SIGINT, -signal.SIGTERM]


@pytest.mark.parametrize("deaf", [False, True])
def test_what_a_successful_attempt_started_ends_with_it(worker: Workers, pids: Path, deaf: bool) -> None:
    worker.start("a", concurrency=1)
    worker.send(["leaves"], "processes.leave", pids=str(pids), deaf=deaf)
    worker.finished(["leaves"])
    # Not later: when the Task is over, nothing of it runs.
    assert left(pids) == []
    assert len(pids.read_text().split()) == 3
    worker.send(["next"])
    worker.finished(["next"])


def test_what_a_cancelled_attempt_started_ends_with_it(worker: Workers, pids: Path) -> None:
    worker.start("a", concurrency=1)
    worker.send(["leaves"], "processes.leave", pids=str(pids), wait=True)
    eventually(pids.with_suffix(".ready").exists, lambda ready: ready)
    assert len(left(pids)) == 3
    worker.cancel("leaves")
    assert failure(worker, EventKind.CANCELLED, "leaves").reason is Reason.CANCELLED
    eventually(lambda: left(pids), lambda rest: rest == [])
    worker.send(["next"])
    worker.succeeded("next")


def test_what_an_attempt_started_ends_when_its_process_dies(worker: Workers, pids: Path) -> None:
    main = worker.start("a", concurrency=1)
    worker.send(["leaves"], "processes.leave", pids=str(pids), wait=True)
    eventually(pids.with_suffix(".ready").exists, lambda ready: ready)
    children = Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text().split()
    for pid in children:
        os.kill(int(pid), signal.SIGKILL)
    assert failure(worker, EventKind.LOST, "leaves").reason is Reason.WORKER_LOST
    eventually(lambda: left(pids), lambda rest: rest == [])
    worker.send(["next"])
    worker.succeeded("next")


def test_what_an_attempt_of_its_own_pod_started_ends_with_it(worker: Workers, pids: Path) -> None:
    worker.leave("u1", "processes.leave", pids=str(pids), wait=True)
    process = worker.once("a", "u1")
    eventually(pids.with_suffix(".ready").exists, lambda ready: ready)
    worker.cancel("u1")
    assert process.wait(60) == 0
    assert left(pids) == []


def test_a_program_may_outlive_its_attempt_if_it_says_so(worker: Workers, pids: Path) -> None:
    main = worker.start("a", concurrency=1)
    worker.send(["leaves"], "processes.leave", pids=str(pids), keep=True)
    worker.finished(["leaves"])
    worker.send(["next"])
    worker.finished(["next"])
    assert len(left(pids)) == 3
    main.send_signal(signal.SIGTERM)
    assert main.wait(20) == 0
    assert len(left(pids)) == 3


def test_in_a_pool_of_threads_what_the_handlers_own_thread_started_ends_with_it(worker: Workers, pids: Path) -> None:
    worker.start("a", concurrency=2, pool_kind="Threads")
    worker.send(["leaves"], "processes.leave", pids=str(pids))
    worker.finished(["leaves"])
    plain, session, orphan = map(int, pids.read_text().split())
    assert [alive(pid) for pid in (plain, session)] == [False, False]
    # Nobody can tell whose that is: it ends with the pod.
    assert alive(orphan)


def test_a_process_whose_descriptors_are_used_up_is_replaced_before_the_next_attempt(worker: Workers) -> None:
    worker.start("a", concurrency=1)
    spoilt = run(worker, "uses", "processes.use_up_descriptors")
    after = [run(worker, f"next-{number}", "processes.pid") for number in range(3)]
    assert spoilt not in after
    assert len(set(after)) == 1
    assert worker.told(EventKind.LOST) == []
    worker.until("a", lambda report: report.busy == 0)


def test_a_worker_that_fails_outside_of_the_handler_tells_it_and_replaces_the_process(worker: Workers) -> None:
    worker.start("a", concurrency=1)
    broken = run(worker, "breaks", "processes.break_capture")
    worker.send(["victim"], "processes.pid")
    found = failure(worker, EventKind.FAILED, "victim")
    assert (found.reason, found.type) == (Reason.WORKER_ERROR, "OSError")
    assert found.message == "the worker failed outside of the handler: OSError: [Errno 24] Too many open files"
    print(found.model_dump_json(by_alias=True, exclude_defaults=True))  # noqa: T201
    assert run(worker, "next", "processes.pid") != broken
    worker.until("a", lambda report: report.busy == 0)
    assert worker.raw.zcard(KEYS.leases) == 0


def test_a_pool_process_that_somebody_else_waited_for_is_replaced(worker: Workers, tmp_path: Path) -> None:
    """A module that a worker imports waits for whatever child ends, as some supervisors of programs do."""
    worker.environment["TASKFLOW_WORKER_HANDLERS"] = "e2e_handlers,e2e_processes,e2e_reaper"
    main = worker.start("a", concurrency=1)
    record = tmp_path / "record"
    worker.send(["held"], "e2e.wait_for_file", record=str(record), path=str(tmp_path / "never"))
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 1)
    os.kill(records(record, "start")[0]["pid"], signal.SIGKILL)
    assert failure(worker, EventKind.LOST, "held").reason is Reason.WORKER_LOST
    worker.until("a", lambda report: report.busy == 0)
    worker.send(["next"])
    worker.succeeded("next")
    assert main.poll() is None


def test_what_a_handler_changes_of_its_process_is_restored(worker: Workers, tmp_path: Path) -> None:
    worker.start("a", concurrency=1)
    before = run(worker, "before", "processes.look")
    spoilt = run(worker, "spoils", "processes.spoil", folder=str(tmp_path))
    assert spoilt == before["pid"]
    assert run(worker, "after", "processes.look") == before


@pytest.mark.parametrize("daemon", [False, True])
def test_a_process_in_which_a_thread_was_left_is_replaced(worker: Workers, daemon: bool) -> None:
    worker.start("a", concurrency=1)
    left_in = run(worker, "leaves", "processes.leave_a_thread", daemon=daemon)
    assert run(worker, "next", "processes.pid") != left_in
    assert worker.told(EventKind.LOST) == []


def test_a_process_that_is_replaced_after_each_attempt_loses_no_message(worker: Workers) -> None:
    worker.start("a", concurrency=2)
    uids = [f"burst-{number}" for number in range(20)]
    worker.send(uids, "processes.leave_a_thread", daemon=True)
    worker.finished(uids)
    assert len({result(worker, uid) for uid in uids}) == 20
