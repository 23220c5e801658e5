# ruff: noqa: T201 - handlers print
from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from taskflow_core.errors import Forbidden, TaskflowError, Unavailable
from taskflow_worker.output import log_shipping
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.output.log_shipping import LogShipper
from tests.builders import UID, make_message


@dataclass
class Bucket:
    content: dict[str, bytes] = field(default_factory=dict)
    errors: list[TaskflowError] = field(default_factory=list)
    down: bool = False
    puts: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)

    def put(self, key: str, content: bytes) -> None:
        self.puts += 1
        if self.down:
            raise Unavailable("down")
        if self.errors:
            raise self.errors.pop(0)
        self.content[key] = content
        self.arrived.set()

    def text(self) -> list[str]:
        whole = b"".join(content for _, content in sorted(self.content.items())).decode()
        return [line.split(" ", 1)[1] for line in whole.splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log_shipping, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(log_shipping, "FLUSH_SECONDS", 0.05)
    # A worker's own log has its own descriptor. Unconfigured structlog prints to stdout.
    with capture_logs():
        yield


def shipper(bucket: Bucket, limit: int = 10**6) -> LogShipper:
    return LogShipper(OutputCapture(), bucket.put, limit)


def test_lines_arrive_while_the_handler_runs() -> None:
    bucket = Bucket()
    with shipper(bucket).shipping(make_message(), logging.INFO):
        print("hello")
        assert bucket.arrived.wait(10)
        assert bucket.text() == ["stdout hello"]
        print("world")
    assert bucket.text() == ["stdout hello", "stdout world"]
    assert list(bucket.content) == [f"team-a/{UID}/1/logs/000001.log"]


def test_the_end_is_stored_before_the_attempt_is_over() -> None:
    bucket = Bucket()
    with shipper(bucket).shipping(make_message(attempt=3), logging.INFO):
        print("no end", end="")
    assert bucket.text() == ["stdout no end"]
    assert list(bucket.content) == [f"team-a/{UID}/3/logs/000001.log"]


def test_a_silent_attempt_stores_nothing() -> None:
    bucket = Bucket()
    with shipper(bucket).shipping(make_message(), logging.INFO):
        pass
    assert bucket.puts == 0


@pytest.mark.parametrize("error", [Unavailable("down"), Forbidden("no right")])
def test_a_store_that_recovers_gets_the_whole_log(error: TaskflowError) -> None:
    bucket = Bucket(errors=[error, error])
    with shipper(bucket).shipping(make_message(), logging.INFO):
        print("one")
        assert bucket.arrived.wait(10)
        print("two")
    assert bucket.text() == ["stdout one", "stdout two"]


def test_a_store_that_stays_unavailable_fails_nothing() -> None:
    bucket = Bucket(down=True)
    with shipper(bucket).shipping(make_message(), logging.INFO):
        print("lost")
    assert bucket.puts >= 2
    assert bucket.content == {}


def test_each_attempt_has_its_own_log() -> None:
    bucket = Bucket()
    ships = shipper(bucket)
    for attempt in (1, 2):
        with ships.shipping(make_message(attempt=attempt), logging.INFO):
            print(f"attempt {attempt}")
    assert {key: content.split(b" ", 1)[1] for key, content in bucket.content.items()} == {
        f"team-a/{UID}/1/logs/000001.log": b"stdout attempt 1\n",
        f"team-a/{UID}/2/logs/000001.log": b"stdout attempt 2\n",
    }


def test_concurrent_attempts_have_separate_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, both, root = Bucket(), threading.Barrier(20), logging.getLogger()
    # The streams of this process are replaced for good.
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    ships = LogShipper(OutputCapture(concurrent=True), bucket.put, 10**6)

    def work(attempt: int) -> None:
        with ships.shipping(make_message(attempt=attempt), logging.INFO):
            for line in range(20):
                both.wait(10)
                print(f"{attempt}: {line}")
                logging.getLogger("shop").warning("%d: %d", attempt, line)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(work, range(20)))
    for attempt in range(20):
        lines = bucket.content[f"team-a/{UID}/{attempt}/logs/000001.log"].decode().splitlines()
        assert [line.split(" ", 1)[1] for line in lines] == [
            text for line in range(20) for text in (f"stdout {attempt}: {line}", f"WARNING shop: {attempt}: {line}")
        ]


def test_a_long_log_is_split_into_chunks_and_its_last_line_says_that_it_was_cut() -> None:
    bucket = Bucket()
    with shipper(bucket, limit=300_000).shipping(make_message(), logging.INFO):
        for index in range(10_000):
            print(index, "x" * 50)
    assert len(bucket.content) == 5
    assert sum(map(len, bucket.content.values())) <= 300_100
    assert bucket.text()[0].startswith("stdout 0 x")
    *_, cut, dropped = bucket.text()
    assert cut == "taskflow the log is cut here: at most 300000 bytes are kept"
    assert dropped.endswith(" bytes of output were dropped")
