# ruff: noqa: T201 - handlers print
from __future__ import annotations

import asyncio
import codecs
import ctypes
import gc
import io
import logging
import logging.config
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from taskflow_worker.output.attempt_log import AttemptLog
from taskflow_worker.output.capture import OutputCapture, attempt_logger
from taskflow_worker.output.descriptors import Descriptors
from tests.e2e.product import eventually


def lines_of(log: AttemptLog) -> list[str]:
    return [line.split(" ", 1)[1] for line in log.text().splitlines()]


def make() -> AttemptLog:
    return AttemptLog(10**9)


def test_prints_and_log_records_are_captured_in_order() -> None:
    log = make()
    with OutputCapture().capture(log):
        print("one")
        logging.getLogger("shop").info("two %s", 2)
        print("three", file=sys.stderr)
        sys.stdout.buffer.write(b"four\n")
        sys.stdout.write("five, without an end")
    assert lines_of(log) == [
        "stdout one",
        "INFO shop: two 2",
        "stderr three",
        "stdout four",
        "stdout five, without an end",
    ]


def test_streams_and_loggers_are_restored_afterwards() -> None:
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
    lines = lines_of(log)
    assert lines[:2] == ["ERROR shop: failed", "ERROR shop: Traceback (most recent call last):"]
    assert lines[-1] == "ERROR shop: ValueError: no rows"


def test_fields_of_structlog_are_shown_except_the_common_ones() -> None:
    log = make()
    with OutputCapture().capture(log), structlog.contextvars.bound_contextvars(uid="u", attempt=1, trace_id="t"):
        attempt_logger.info("rows_read", count=3, exception="Trace:\n  line")
    assert lines_of(log) == [
        "INFO taskflow.attempt: rows_read count=3",
        "INFO taskflow.attempt: Trace:",
        "INFO taskflow.attempt:   line",
    ]


def test_the_workers_own_log_records_are_left_out() -> None:
    log = make()
    with OutputCapture().capture(log):
        logging.getLogger("taskflow_worker.attempts.execution").warning("waiting")
        logging.getLogger("celery.app.trace").info("succeeded")
    assert lines_of(log) == []


def test_records_below_the_level_are_left_out() -> None:
    log = make()
    with OutputCapture().capture(log, logging.WARNING):
        logging.getLogger("shop").info("no")
        logging.getLogger("shop").warning("yes")
    assert lines_of(log) == ["WARNING shop: yes"]


def test_a_stream_that_a_library_kept_writes_into_the_next_attempt() -> None:
    output, first, second = OutputCapture(), make(), make()
    with output.capture(first):
        kept = sys.stdout
    with output.capture(second):
        kept.write("hello\n")
    assert lines_of(first) == []
    assert lines_of(second) == ["stdout hello"]


def test_between_attempts_a_kept_stream_writes_where_it_did_before(capsys: pytest.CaptureFixture[str]) -> None:
    output = OutputCapture()
    with output.capture(make()):
        kept = sys.stdout
    kept.write("outside\n")
    assert capsys.readouterr().out == "outside\n"


def test_output_of_the_handlers_threads_is_captured() -> None:
    log = make()
    with OutputCapture().capture(log):
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
    assert lines_of(log) == ["stdout from a thread"]


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def test_output_of_programs_and_c_code_is_captured(descriptor: int) -> None:
    log, descriptors = make(), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        os.write(descriptor, b"from C\n")
        subprocess.run(["sh", "-c", "echo from a program; printf 'no end'"], stdout=descriptor, check=True)
        descriptors.drain()
        assert lines_of(log) == ["stdout from C", "stdout from a program"]
    assert lines_of(log)[-1] == "stdout no end"
    os.write(descriptor, b"after\n")
    assert os.pread(descriptor, 100, 0) == b"after\n"


def test_what_c_code_keeps_in_its_buffer_is_in_the_log_of_its_own_attempt() -> None:
    first, second, descriptors = make(), make(), Descriptors()
    with descriptors.capture(first):
        ctypes.CDLL(None).puts(b"from C")
    with descriptors.capture(second):
        pass
    assert lines_of(first) == ["stdout from C"]
    assert lines_of(second) == []


def test_a_program_that_outlives_its_attempt_does_not_write_to_the_next_log(descriptor: int) -> None:
    first, second, descriptors = make(), make(), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(first):
        left = subprocess.Popen(["sh", "-c", "read go; echo late"], stdin=subprocess.PIPE, stdout=descriptor)
    with descriptors.capture(second):
        left.communicate(b"go\n")
        descriptors.drain()
    assert lines_of(first) == lines_of(second) == []


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test itself says when output is read."""
    monkeypatch.setattr(Descriptors, "_start", lambda _: None)


@pytest.mark.usefixtures("unwatched")
def test_a_flood_does_not_stay_in_memory(descriptor: int) -> None:
    log, descriptors = AttemptLog(2000), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        for _ in range(20):
            os.write(descriptor, b"x" * 99 + b"\n")
        descriptors.drain()
        os.write(descriptor, b"x" * 100_000)
        descriptors.drain()
        assert os.fstat(descriptor).st_blocks <= 8
    log.finish()
    *_, cut, dropped = lines_of(log)
    assert "the log is cut here" in cut
    assert dropped == "taskflow 100500 bytes of output were dropped"


@pytest.mark.usefixtures("unwatched")
def test_what_is_read_is_given_back_although_the_log_has_room(descriptor: int) -> None:
    log, descriptors = make(), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        for _ in range(5):
            os.write(descriptor, b"\rx" * 500_000)
            descriptors.drain()
            assert os.fstat(descriptor).st_blocks <= 8
    assert len(log.text()) < 1000


@pytest.mark.usefixtures("unwatched")
def test_what_has_no_room_is_given_back_unread_and_counted(descriptor: int) -> None:
    log, descriptors = AttemptLog(1_000_000), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        # Redraws take no room, so the log is not full after as many bytes as it may have.
        os.write(descriptor, b"\rx" * 500_000 + b"\r" + b"lost\n" * 10_000)
        descriptors.drain()
        os.write(descriptor, b"after\n")
    log.finish()
    lines = lines_of(log)
    assert set(lines[:-3]) == {"stdout x"}
    assert lines[-3:] == [
        "taskflow 50001 bytes of output are left out here: at most 1000000 bytes are kept",
        "stdout after",
        "taskflow 50001 bytes of output were dropped",
    ]


def test_output_is_read_while_the_attempt_runs(descriptor: int) -> None:
    log = make()
    with Descriptors([(descriptor, "stdout")]).capture(log):
        for number in range(3):
            os.write(descriptor, b"%d\n" % number)
            eventually(lambda: lines_of(log)[-1:], [f"stdout {number}"].__eq__)


def test_a_program_that_outlives_its_attempt_takes_no_more_memory(descriptor: int) -> None:
    log, descriptors = make(), Descriptors([(descriptor, "stdout")])
    with descriptors.capture(log):
        kept = os.dup(descriptor)
        os.write(kept, b"in time\n")
    with pytest.raises(PermissionError):
        os.write(kept, b"late\n")
    assert os.fstat(kept).st_blocks == 0
    os.close(kept)
    assert lines_of(log) == ["stdout in time"]


def test_a_stream_may_be_reconfigured_wrapped_and_closed() -> None:
    output, first, second = OutputCapture(), make(), make()
    with output.capture(first):
        sys.stdout.reconfigure(encoding="latin-1", errors="strict", line_buffering=True)  # type: ignore[union-attr]
        print(sys.stdout.name, sys.stdout.encoding, isinstance(sys.stdout, io.TextIOWrapper))
        io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8").write("wrapped\n")
        gc.collect()
        codecs.getwriter("utf-8")(sys.stdout.buffer).write("encoded\n")
        with io.BufferedWriter(sys.stdout.buffer.raw) as raw:  # type: ignore[union-attr]
            raw.write(b"raw\n")
        sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")  # type: ignore[union-attr]
        print("not flushed: \u00e9")
        sys.stderr.close()
    with output.capture(second):
        print("later: \u20ac")
        print("later", file=sys.stderr)
    assert lines_of(first) == [
        "stdout <stdout> utf-8 True",
        "stdout wrapped",
        "stdout encoded",
        "stdout raw",
        "stdout not flushed: \u00e9",
    ]
    assert lines_of(second) == ["stdout later: \u20ac", "stderr later"]


def test_a_character_written_in_pieces_to_a_stream_is_one() -> None:
    log = make()
    with OutputCapture().capture(log):
        for byte in "\u00e9\U0001f40d\n".encode():
            sys.stdout.buffer.write(bytes([byte]))
    assert lines_of(log) == ["stdout \u00e9\U0001f40d"]


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    off = {name for name, each in root.manager.loggerDict.items() if getattr(each, "disabled", False)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.disable(disabled)
    for name, each in root.manager.loggerDict.items():
        if isinstance(each, logging.Logger):
            each.disabled = name in off


CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": True,
    "formatters": {"own": {"format": "own %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "own"}},
    "root": {"level": "INFO", "handlers": ["out"]},
}


@pytest.mark.usefixtures("restored_logging")
def test_logging_that_a_handler_configures_loses_no_trace_and_doubles_nothing() -> None:
    output, first, second = OutputCapture(), make(), make()
    own, other, off = map(logging.getLogger, ("taskflow_worker.process.runner", "shop.old", "shop.off"))
    off.disabled = True
    with output.capture(first):
        logging.config.dictConfig(CONFIG)
        logging.disable(logging.CRITICAL)
        attempt_logger.error("handler_raised", exception="Trace:")
    assert (own.disabled, other.disabled, off.disabled) == (False, False, True)
    with output.capture(second):
        logging.getLogger("shop.new").info("once")
        attempt_logger.error("handler_raised")
    assert lines_of(first) == ["ERROR taskflow.attempt: handler_raised", "ERROR taskflow.attempt: Trace:"]
    assert lines_of(second) == ["stdout own once", "ERROR taskflow.attempt: handler_raised"]


@pytest.mark.usefixtures("restored_logging")
def test_a_record_that_the_programs_own_handler_leaves_out_is_not_lost() -> None:
    log = make()
    with OutputCapture().capture(log):
        picky, filtered = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stdout)
        picky.setLevel(logging.ERROR)
        filtered.addFilter(lambda _: False)
        logging.getLogger().handlers += [picky, filtered]
        logging.getLogger("shop").warning("kept")
    assert lines_of(log) == ["WARNING shop: kept"]


def _say() -> None:
    print("from a child", flush=True)
    logging.getLogger("shop").warning("logged in a child")
    sys.stderr.flush()


def test_a_process_that_the_handler_forks_does_not_hang(descriptor: int) -> None:
    log = make()
    with OutputCapture().capture(log):
        # Locked during the fork, as by the thread that ships logs.
        with log._lock:
            child = multiprocessing.get_context("fork").Process(target=_say)
            child.start()
        child.join(10)
        assert child.exitcode == 0
    assert lines_of(log) == []


@pytest.fixture
def concurrent(monkeypatch: pytest.MonkeyPatch) -> OutputCapture:
    """It replaces the process's streams for good, so the fixture restores them."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[:])
    return OutputCapture(concurrent=True)


def test_concurrent_attempts_write_to_their_own_logs(concurrent: OutputCapture) -> None:
    logs, both = {"a": make(), "b": make()}, threading.Barrier(2)

    def work(name: str) -> None:
        with concurrent.capture(logs[name]):
            for number in range(50):
                both.wait(10)
                print(name, end="")
                print(f" {number}")
                logging.getLogger("shop").info("%s %d", name, number)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, logs))
    for name, log in logs.items():
        assert lines_of(log) == [
            line for number in range(50) for line in (f"stdout {name} {number}", f"INFO shop: {name} {number}")
        ]


def test_output_outside_of_attempts_belongs_to_none(concurrent: OutputCapture) -> None:
    log = make()
    with concurrent.capture(log):
        stranger = threading.Thread(target=print, args=("from a stranger",))
        stranger.start()
        stranger.join()
        asyncio.run(asyncio.to_thread(print, "from a thread with the context"))
    print("afterwards")
    assert lines_of(log) == ["stdout from a thread with the context"]


def test_a_stream_that_a_logger_kept_before_any_attempt_is_captured_too(concurrent: OutputCapture) -> None:
    concurrent.install()
    log, kept = make(), logging.StreamHandler()
    logging.getLogger("kept").addHandler(kept)
    try:
        with concurrent.capture(log, logging.CRITICAL):
            logging.getLogger("kept").error("by its own handler")
    finally:
        logging.getLogger("kept").removeHandler(kept)
    assert lines_of(log) == ["stderr by its own handler"]
