"""A worker whose runners are threads: what it shares with processes, and what differs."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from taskflow_core.domain.events import Continuation, EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_local.stack import Stack
from tests.e2e.product import eventually, records
from tests.integration.taskflow_worker.process import KEYS, Workers, log_of

pytestmark = pytest.mark.integration
GRACE_SECONDS = 1


@pytest.fixture
def threads(workers: Workers) -> Workers:
    workers.environment |= {
        "TASKFLOW_WORKER_POOL_KIND": "Threads",
        "TASKFLOW_WORKER_HANDLERS": "e2e_handlers,e2e_sdk",
        "TASKFLOW_WORKER_LEASE_SECONDS": "2",
        "TASKFLOW_WORKER_STOP_GRACE_SECONDS": str(GRACE_SECONDS),
    }
    return workers


def hold(workers: Workers, folder: Path, uid: str, timeout: int | None = None) -> Path:
    """Start an attempt that runs until the returned file exists, and ignores stop requests."""
    gate, record = folder / f"{uid}.gate", folder / f"{uid}.record"
    workers.send([uid], "e2e.wait_for_file", timeout, record=str(record), path=str(gate))
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 1)
    return gate


def failures(workers: Workers, kind: EventKind) -> dict[str, Failure]:
    return {event.uid: Failure.model_validate(event.payload) for event in workers.told(kind)}


def ended(workers: Workers, kind: EventKind, uid: str, seconds: float = 30) -> Failure:
    return eventually(lambda: failures(workers, kind), lambda found: uid in found, seconds)[uid]


def succeeded(workers: Workers, *uids: str) -> None:
    """Wait until they succeeded, each in one run.

    Messages of attempts that were given up or released stay unacknowledged, and are refused later.
    """
    workers.succeeded(*uids)
    assert sorted(event.uid for event in workers.told(EventKind.STARTED) if event.uid in uids) == sorted(uids)


def test_a_burst_runs_concurrently_and_each_attempt_once(threads: Workers, tmp_path: Path) -> None:
    threads.start("a", concurrency=50)
    threads.until("a", lambda report: report.serving and report.slots == 50)
    burst = [f"burst-{number}" for number in range(300)]
    gate = tmp_path / "gate"
    threads.send(burst, "e2e.wait_for_file", record=str(tmp_path / "record"), path=str(gate))
    eventually(lambda: len(records(tmp_path / "record", "start")), lambda count: count == 50)
    threads.until("a", lambda report: report.busy == 50)
    gate.touch()
    threads.finished(burst)
    assert len({line["pid"] for line in records(tmp_path / "record", "start")}) == 1
    assert threads.until("a", lambda report: report.busy == 0).serving


def test_concurrent_attempts_have_separate_logs(threads: Workers, minio: Stack) -> None:
    store = threads.keep_logs(minio)
    threads.start("a", concurrency=8)
    uids = [f"talks-{number}" for number in range(8)]
    threads.send(uids, "sdk.chatter", lines=40)
    threads.finished(uids)
    for uid in uids:
        assert log_of(store, uid) == [
            line for number in range(40) for line in (f"stdout {uid} {number}", f"WARNING e2e.sdk: {uid} {number}")
        ]


@pytest.mark.parametrize("handler", ["sdk.polite", "sdk.nap"])
def test_a_cooperative_handler_stops_on_cancellation_and_the_others_continue(
    threads: Workers, tmp_path: Path, handler: str
) -> None:
    threads.start("a", concurrency=3)
    gate = hold(threads, tmp_path, "beside")
    threads.send(["told"], handler, record=str(tmp_path / "record"))
    eventually(lambda: records(tmp_path / "record", "start"), lambda starts: len(starts) == 1)
    threads.cancel("told")
    assert ended(threads, EventKind.CANCELLED, "told").reason is Reason.CANCELLED
    assert records(tmp_path / "record", "stopped" if handler == "sdk.polite" else "cleaned")
    gate.touch()
    threads.finished(["beside"])


@pytest.mark.parametrize("handler", ["sdk.polls", "sdk.polls_async"])
def test_a_handler_in_a_thread_may_ask_to_be_run_again(threads: Workers, handler: str) -> None:
    threads.start("a")
    threads.send(["asks"], handler, times=1, seconds=60)
    eventually(lambda: threads.told(EventKind.AGAIN), lambda told: len(told) == 1)
    (event,) = threads.told(EventKind.AGAIN)
    asked = Continuation.model_validate(event.payload)
    assert (event.uid, asked.seconds, asked.checkpoint, asked.message) == ("asks", 60, "1", "asked 0 times")
    # It holds nothing: neither the lease nor the slot.
    assert threads.raw.zcard(KEYS.leases) == 0
    threads.until("a", lambda report: report.busy == 0)


@pytest.mark.parametrize("handler", ["sdk.polite", "sdk.nap"])
def test_a_timeout_reaches_a_cooperative_handler(threads: Workers, tmp_path: Path, handler: str) -> None:
    threads.start("a")
    threads.send(["slow"], handler, 1, record=str(tmp_path / "record"))
    assert ended(threads, EventKind.FAILED, "slow").reason is Reason.ATTEMPT_TIMEOUT
    assert threads.told(EventKind.STALE) == []


def test_an_uncooperative_handler_is_given_up_and_its_late_end_refused(threads: Workers, tmp_path: Path) -> None:
    process = threads.start("a", concurrency=2)
    gate = hold(threads, tmp_path, "deaf", timeout=1)
    failure = ended(threads, EventKind.FAILED, "deaf")
    assert failure.reason is Reason.ATTEMPT_TIMEOUT
    assert "was given up, since a thread cannot be killed" in failure.message
    assert threads.raw.zcard(KEYS.leases) == 0
    # The other slot can still be used, this one cannot.
    threads.send(["next"])
    succeeded(threads, "next")
    threads.goes_on("a")
    assert threads.until("a", lambda report: report.serving).busy == 1
    gate.touch()
    eventually(lambda: [event.uid for event in threads.told(EventKind.STALE)], lambda uids: uids == ["deaf"])
    threads.until("a", lambda report: report.busy == 0)
    both = [hold(threads, tmp_path, uid) for uid in ("both-1", "both-2")]
    for each in both:
        each.touch()
    threads.finished(["both-1", "both-2"])
    assert process.poll() is None


def test_a_thread_that_does_not_return_ends_the_worker_after_the_others(threads: Workers, tmp_path: Path) -> None:
    process = threads.start("a", concurrency=3, drain_seconds=60, thread_return_seconds=1)
    gate = hold(threads, tmp_path, "beside")
    hold(threads, tmp_path, "deaf", timeout=1)
    ended(threads, EventKind.FAILED, "deaf")
    eventually(threads.log("a").read_text, lambda text: "worker_draining" in text)
    threads.send(["later"])
    time.sleep(1)
    assert process.poll() is None
    gate.touch()
    assert process.wait(15) == 1
    assert threads.told(EventKind.RELEASED) == []
    assert threads.seen().reports == {}
    threads.start("b")
    succeeded(threads, "beside", "later")


def test_sigterm_lets_handlers_end_and_releases_the_rest(threads: Workers, tmp_path: Path) -> None:
    process = threads.start("a", concurrency=3, drain_seconds=4)
    gate = hold(threads, tmp_path, "ends")
    hold(threads, tmp_path, "stays")
    process.send_signal(signal.SIGTERM)
    eventually(threads.log("a").read_text, lambda text: "worker_draining" in text)
    threads.send(["later"])
    gate.touch()
    succeeded(threads, "ends")
    assert process.wait(15) == 0
    assert {uid: each.reason for uid, each in failures(threads, EventKind.RELEASED).items()} == {"stays": Reason.DRAIN}
    assert threads.raw.zcard(KEYS.leases) == 0
    threads.start("b")
    succeeded(threads, "ends", "later")


@pytest.mark.parametrize("handler", ["taskflow.echo", "sdk.leaves_a_thread"])
def test_an_idle_worker_ends_at_once_on_sigterm(threads: Workers, handler: str) -> None:
    process = threads.start("a", drain_seconds=60)
    threads.send(["done"], handler)
    threads.finished(["done"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert threads.seen().reports == {}


def test_attempts_of_a_killed_worker_are_found_by_their_leases(threads: Workers, tmp_path: Path) -> None:
    process = threads.start("a", concurrency=4)
    uids = [f"held-{number}" for number in range(4)]
    for uid in uids:
        hold(threads, tmp_path, uid)
    # They are renewed while the worker lives.
    threads.goes_on("a", 4)
    assert threads.expire() == []
    process.kill()
    process.wait()
    found: set[str] = set()

    def lost() -> set[str]:
        found.update(threads.expire())
        return found

    eventually(lost, lambda members: members == {f"{uid}:1" for uid in uids}, 10)


def test_a_worker_that_lost_its_broker_connection_runs_nothing_twice(threads: Workers, tmp_path: Path) -> None:
    threads.start("a", concurrency=3)
    gates = [hold(threads, tmp_path, uid) for uid in ("one", "two")]
    threads.raw.client_kill_filter(_type="normal", skipme=True)
    eventually(threads.log("a").read_text, lambda text: "Connection to broker lost" in text)
    threads.until("a", lambda report: report.serving and report.busy == 2)
    for gate in gates:
        gate.touch()
    threads.send(["later"])
    succeeded(threads, "one", "two", "later")
    assert len(threads.told(EventKind.STARTED)) == 3
