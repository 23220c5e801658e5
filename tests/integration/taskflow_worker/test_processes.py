"""What handlers do to their process, and what must not come of it. One real worker for all tests here."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.settings import RedisSettings
from taskflow_local.stack import Stack
from tests.e2e.product import eventually
from tests.integration.taskflow_worker.process import KEYS, PROCESS_HANDLERS, Workers, left
from tests.redis_users import as_worker

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(redis_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A worker `a` with one slot. No test waits for another one to start: a test that breaks it is the finding."""
    settings = RedisSettings(url=SecretStr(redis_stack.env()["TASKFLOW_REDIS_URL"]))
    raw = connect_sync(settings)
    raw.flushall()
    made = Workers(settings, as_worker(settings, raw, "team-a"), raw, Path(tmp_path_factory.mktemp("worker")))
    made.environment |= PROCESS_HANDLERS
    try:
        made.start("a", concurrency=1)
        yield made
    finally:
        made.end_all()
        raw.connection_pool.disconnect()


@pytest.fixture
def worker(shared: Workers) -> Iterator[Workers]:
    """The shared worker. After each test its slot is free and no attempt was told twice."""
    yield shared
    shared.until("a", lambda report: report.busy == 0 and report.serving)
    assert shared.told(EventKind.STALE) == []
    assert shared.told(EventKind.DUPLICATE) == []
    assert shared.raw.zcard(KEYS.leases) == 0


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where `processes.leave` writes what it started."""
    path = tmp_path / "pids"
    yield path
    for pid in left(path):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 7)])
def test_a_forked_process_that_leaves_the_handler_ends_there(worker: Workers, how: str, code: int) -> None:
    before = len(worker.told(EventKind.PROGRESS))
    # Its value does not win over the parent's, and it reports nothing.
    assert worker.run(f"forks-{how}", "processes.fork_and_return", how=how) == f"parent {code}"
    assert len(worker.told(EventKind.PROGRESS)) == before
    # It takes no message either: one process runs all of these.
    assert len({worker.run(f"after-{how}-{number}", "processes.pid") for number in range(5)}) == 1


def test_a_process_that_a_coroutine_forks_ends_there(worker: Workers) -> None:
    assert worker.run("coroutine", "processes.fork_in_coroutine") == "parent"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_handler_may_use_processes(worker: Workers, method: str) -> None:
    # Twice: what the first attempt leaves of multiprocessing's helpers must not disturb the second.
    for uid in (f"{method}-1", f"{method}-2"):
        assert worker.run(uid, "processes.parallel", method=method) == [1, 1, 2, 6] * 2


def test_programs_and_processes_of_a_handler_can_be_interrupted(worker: Workers) -> None:
    assert worker.run("signals", "processes.interruptible") == [-signal.SIGINT, -signal.SIGTERM]


@pytest.mark.parametrize("deaf", [False, True])
def test_what_a_successful_attempt_started_ends_with_it(worker: Workers, pids: Path, deaf: bool) -> None:
    worker.send([f"leaves-{deaf}"], "processes.leave", pids=str(pids), deaf=deaf)
    worker.succeeded(f"leaves-{deaf}")
    # Not later: when the Task is over, nothing of it runs.
    assert left(pids) == []
    assert len(pids.read_text().split()) == 3


def test_what_a_cancelled_attempt_started_ends_with_it(worker: Workers, pids: Path) -> None:
    worker.send(["cancelled"], "processes.leave", pids=str(pids), wait=True)
    eventually(pids.with_suffix(".ready").exists, lambda ready: ready)
    assert len(left(pids)) == 3
    worker.cancel("cancelled")
    assert worker.failure(EventKind.CANCELLED, "cancelled").reason is Reason.CANCELLED
    eventually(lambda: left(pids), lambda rest: rest == [])
    worker.run("after-cancelled", "processes.pid")


def test_what_an_attempt_started_ends_when_its_process_dies(worker: Workers, pids: Path) -> None:
    runner = worker.run("before-death", "processes.pid")
    worker.send(["dies"], "processes.leave", pids=str(pids), wait=True)
    eventually(pids.with_suffix(".ready").exists, lambda ready: ready)
    os.kill(runner, signal.SIGKILL)
    assert worker.failure(EventKind.LOST, "dies").reason is Reason.WORKER_LOST
    eventually(lambda: left(pids), lambda rest: rest == [])
    assert worker.run("after-death", "processes.pid") != runner


def test_a_program_may_outlive_its_attempt_if_it_says_so(worker: Workers, pids: Path) -> None:
    worker.run("keeps", "processes.leave", pids=str(pids), keep=True)
    worker.run("after-keeps", "processes.pid")
    assert len(left(pids)) == 3


def test_a_process_whose_descriptors_are_used_up_is_replaced_before_the_next_attempt(worker: Workers) -> None:
    spoilt = worker.run("uses-up", "processes.use_up_descriptors")
    after = {worker.run(f"after-uses-up-{number}", "processes.pid") for number in range(3)}
    assert len(after) == 1
    assert spoilt not in after


def test_a_worker_that_fails_outside_of_the_handler_tells_it_and_replaces_the_process(worker: Workers) -> None:
    broken = worker.run("breaks", "processes.break_capture")
    worker.send(["victim"], "processes.pid")
    found = worker.failure(EventKind.FAILED, "victim")
    assert (found.reason, found.type) == (Reason.WORKER_ERROR, "OSError")
    assert found.message == "the worker failed outside of the handler: OSError: [Errno 24] Too many open files"
    assert worker.run("after-victim", "processes.pid") != broken


def test_what_a_handler_changes_of_its_process_is_restored(worker: Workers, tmp_path: Path) -> None:
    before = worker.run("before-spoils", "processes.look")
    assert worker.run("spoils", "processes.spoil", folder=str(tmp_path)) == before["pid"]
    assert worker.run("after-spoils", "processes.look") == before


@pytest.mark.parametrize("daemon", [False, True])
def test_a_process_in_which_a_thread_was_left_is_replaced(worker: Workers, daemon: bool) -> None:
    left_in = worker.run(f"thread-{daemon}", "processes.leave_a_thread", daemon=daemon)
    assert worker.run(f"after-thread-{daemon}", "processes.pid") != left_in


def test_a_process_that_is_replaced_after_each_attempt_loses_no_message(worker: Workers) -> None:
    uids = [f"burst-{number}" for number in range(10)]
    worker.send(uids, "processes.leave_a_thread", daemon=True)
    worker.finished(uids)
    assert len({worker.result(uid) for uid in uids}) == len(uids)
