# ruff: noqa: T201 - handlers print
from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from taskflow_worker.output.attempt_log import AttemptLog
from taskflow_worker.output.capture import OutputCapture, attempt_logger
from taskflow_worker.output.descriptors import Descriptors


def said(log: AttemptLog) -> list[str]:
    return [line.split(" ", 1)[1] for line in log.text().splitlines()]


def make() -> AttemptLog:
    return AttemptLog(10**9)


def test_prints_and_log_records_are_caught_in_their_order() -> None:
    log = make()
    with OutputCapture().capture(log):
        print("one")
        logging.getLogger("shop").info("two %s", 2)
        print("three", file=sys.stderr)
        sys.stdout.buffer.write(b"four\n")
        sys.stdout.write("five, without an end")
    assert said(log) == ["stdout one", "INFO shop: two 2", "stderr three", "stdout four", "stdout five, without an end"]


def test_everything_is_as_it_was_afterwards() -> None:
    streams, handlers, level = (sys.stdout, sys.stderr), logging.getLogger().handlers[:], logging.getLogger().level
    with pytest.raises(RuntimeError), OutputCapture().capture(make()):
        raise RuntimeError
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger().level == level


def test_an_exception_is_logged_with_its_traceback_line_by_line() -> None:
    log = make()
    with OutputCapture().capture(log):
        try:
            raise ValueError("no rows")  # noqa: TRY301
        except ValueError:
            logging.getLogger("shop").exception("failed")
    lines = said(log)
    assert lines[:2] == ["ERROR shop: failed", "ERROR shop: Traceback (most recent call last):"]
    assert lines[-1] == "ERROR shop: ValueError: no rows"


def test_fields_of_structlog_are_shown_and_what_every_line_has_is_not() -> None:
    log = make()
    with OutputCapture().capture(log), structlog.contextvars.bound_contextvars(uid="u", attempt=1, trace_id="t"):
        attempt_logger.info("rows_read", count=3, exception="Trace:\n  line")
    assert said(log) == [
        "INFO taskflow.attempt: rows_read count=3",
        "INFO taskflow.attempt: Trace:",
        "INFO taskflow.attempt:   line",
    ]


def test_the_machinery_does_not_speak_in_the_log_of_an_attempt() -> None:
    log = make()
    with OutputCapture().capture(log):
        logging.getLogger("taskflow_worker.attempts.execution").warning("waiting")
        logging.getLogger("celery.app.trace").info("succeeded")
    assert said(log) == []


def test_levels_below_the_one_asked_for_are_left_out() -> None:
    log = make()
    with OutputCapture().capture(log, logging.WARNING):
        logging.getLogger("shop").info("no")
        logging.getLogger("shop").warning("yes")
    assert said(log) == ["WARNING shop: yes"]


def test_a_stream_that_a_library_kept_writes_into_the_next_attempt() -> None:
    output, first, second = OutputCapture(), make(), make()
    with output.capture(first):
        kept = sys.stdout
    with output.capture(second):
        kept.write("hello\n")
    assert said(first) == []
    assert said(second) == ["stdout hello"]


def test_between_attempts_a_kept_stream_writes_where_it_did_before(capsys: pytest.CaptureFixture[str]) -> None:
    output = OutputCapture()
    with output.capture(make()):
        kept = sys.stdout
    kept.write("outside\n")
    assert capsys.readouterr().out == "outside\n"


def test_threads_of_the_handler_are_heard() -> None:
    log = make()
    with OutputCapture().capture(log):
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
    assert said(log) == ["stdout from a thread"]


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def test_programs_and_c_code_are_heard(descriptor: int) -> None:
    log, descriptors = make(), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        os.write(descriptor, b"from C\n")
        subprocess.run(["sh", "-c", "echo from a program; printf 'no end'"], stdout=descriptor, check=True)
        descriptors.drain()
        assert said(log) == ["stdout from C", "stdout from a program"]
    assert said(log)[-1] == "stdout no end"
    os.write(descriptor, b"after\n")
    assert os.pread(descriptor, 100, 0) == b"after\n"


def test_a_program_that_outlives_its_attempt_does_not_speak_in_the_next(descriptor: int) -> None:
    first, second, descriptors = make(), make(), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(first):
        left = subprocess.Popen(["sh", "-c", "read go; echo late"], stdin=subprocess.PIPE, stdout=descriptor)
    with descriptors.capture(second):
        left.communicate(b"go\n")
        descriptors.drain()
    assert said(first) == said(second) == []


def test_a_flood_does_not_stay_in_memory(descriptor: int) -> None:
    log, descriptors = AttemptLog(2000), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        for _ in range(20):
            os.write(descriptor, b"x" * 99 + b"\n")
        descriptors.drain()
        os.write(descriptor, b"x" * 100_000)
        descriptors.drain()
        assert os.fstat(descriptor).st_size == 0
    assert "the log is cut here" in said(log)[-1]


def _say() -> None:
    print("from a child", flush=True)
    logging.getLogger("shop").warning("logged in a child")
    sys.stderr.flush()


def test_a_process_that_the_handler_forks_does_not_hang(descriptor: int) -> None:
    log = make()
    with OutputCapture().capture(log):
        # Held at the moment of the fork, as the thread that ships may hold it.
        with log._lock:
            child = multiprocessing.get_context("fork").Process(target=_say)
            child.start()
        child.join(10)
        assert child.exitcode == 0
    assert said(log) == []


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> OutputCapture:
    """It stands before the process's streams for good, so that they are put back."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[:])
    return OutputCapture(concurrent=True)


def test_of_two_attempts_at_a_time_each_is_heard_in_its_own_log(together: OutputCapture) -> None:
    logs, both = {"a": make(), "b": make()}, threading.Barrier(2)

    def work(name: str) -> None:
        with together.capture(logs[name]):
            for number in range(50):
                both.wait(10)
                print(name, end="")
                print(f" {number}")
                logging.getLogger("shop").info("%s %d", name, number)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, logs))
    for name, log in logs.items():
        assert said(log) == [
            line for number in range(50) for line in (f"stdout {name} {number}", f"INFO shop: {name} {number}")
        ]


def test_what_is_said_outside_of_all_attempts_is_no_attempts(together: OutputCapture) -> None:
    log = make()
    with together.capture(log):
        stranger = threading.Thread(target=print, args=("from a stranger",))
        stranger.start()
        stranger.join()
        asyncio.run(asyncio.to_thread(print, "from a thread with the context"))
    print("afterwards")
    assert said(log) == ["stdout from a thread with the context"]


def test_a_stream_that_was_kept_before_any_attempt_is_heard_too(together: OutputCapture) -> None:
    together.install()
    log, kept = make(), logging.StreamHandler()
    logging.getLogger("kept").addHandler(kept)
    try:
        with together.capture(log, logging.CRITICAL):
            logging.getLogger("kept").error("by its own handler")
    finally:
        logging.getLogger("kept").removeHandler(kept)
    assert said(log) == ["stderr by its own handler"]
