from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_worker.output.attempt_log import CHUNK_BYTES, AttemptLog, Chunk, LineSplitter, chunk_key
from tests.builders import make_message

NOON = datetime(2026, 3, 1, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
STAMP = "2026-03-01T12:00:00.123Z"
MANY = 10**9


def make(limit: int = MANY) -> AttemptLog:
    return AttemptLog(limit, lambda: NOON)


def test_a_line_has_its_time_in_utc_and_where_it_came_from() -> None:
    log = make()
    log.add("stdout", "hello\n")
    assert log.text() == f"{STAMP} stdout hello\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb", ["a", "b"]),
        ("a\r\nb\n", ["a", "b"]),
        ("10%\r20%\r", ["10%", "20%"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("\n", [""]),
        ("line\u2028separator\x0b\n", ["line\u2028separator\x0b"]),
    ],
)
def test_each_line_of_a_text_becomes_a_line_of_the_log(text: str, lines: list[str]) -> None:
    log = make()
    log.add("stdout", text)
    assert log.text() == "".join(f"{STAMP} stdout {line}\n" for line in lines)


def test_a_lone_surrogate_is_shown_escaped() -> None:
    log = make()
    log.add("stdout", "\ud800")
    assert log.text() == f"{STAMP} stdout \\ud800\n"


def test_the_last_line_of_a_full_log_says_that_it_was_cut() -> None:
    log = make(limit=200)
    for _ in range(100):
        log.add("stdout", "x" * 20)
    lines = log.text().splitlines()
    assert log.full
    assert lines[-1] == f"{STAMP} taskflow the log is cut here: at most 200 bytes are kept"
    assert sum(len(line) + 1 for line in lines[:-1]) <= 200
    assert all(line == f"{STAMP} stdout {'x' * 20}" for line in lines[:-1])


def test_a_chunk_grows_until_it_is_closed_and_is_dropped_once_it_is_stored() -> None:
    log = make()
    log.add("stdout", "a")
    (first,) = log.pending()
    assert first.number == 1
    log.stored(first)
    assert log.pending() == []
    log.add("stdout", "b")
    (longer,) = log.pending()
    assert longer.number == 1
    assert longer.content.startswith(first.content)
    log.add("stdout", "x" * CHUNK_BYTES)
    log.add("stdout", "next")
    # The stored version is older than the closed chunk.
    log.stored(longer)
    whole, second = log.pending()
    assert (whole.number, second.number) == (1, 2)
    log.stored(whole)
    assert log.pending() == [second]
    assert log.text().encode() == second.content


@given(st.lists(st.text(alphabet="ab\n\ré", max_size=30), max_size=60), st.integers(1, 20))
def test_chunks_in_order_are_the_log_however_often_they_are_stored(pieces: list[str], every: int) -> None:
    log, bucket = AttemptLog(MANY, lambda: NOON, chunk_bytes=100), dict[int, bytes]()
    expected = make()
    for index, piece in enumerate(pieces):
        log.add("t", piece)
        expected.add("t", piece)
        if index % every == 0:
            for chunk in log.pending():
                bucket[chunk.number] = chunk.content
                log.stored(chunk)
    for chunk in log.pending():
        bucket[chunk.number] = chunk.content
        log.stored(chunk)
    # The second log drops nothing, because none of it is stored.
    assert b"".join(content for _, content in sorted(bucket.items())) == expected.text().encode()


def test_keys_sort_in_the_order_of_the_chunks() -> None:
    message = make_message(uid="u", attempt=2)
    assert chunk_key(message, 7) == "team-a/u/2/logs/000007.log"
    keys = [chunk_key(message, number) for number in (1, 9, 10, 999, 1000)]
    assert keys == sorted(keys)


def test_pieces_of_a_stream_become_lines() -> None:
    log = make()
    lines = LineSplitter(log, "stdout")
    for piece in ("he", "llo\nwor", "ld", "\n", "rest"):
        lines.feed(piece)
    assert log.text() == f"{STAMP} stdout hello\n{STAMP} stdout world\n"
    lines.finish()
    assert log.text().endswith(f"{STAMP} stdout rest\n")


def test_a_character_may_span_several_pieces() -> None:
    log = make()
    lines = LineSplitter(log, "stdout")
    for byte in "é\U0001f40d\n".encode() + b"\xff\n" + "é".encode()[:1]:
        lines.feed_bytes(bytes([byte]))
    lines.finish()
    assert [line.split(" ", 2)[2] for line in log.text().splitlines()] == ["é\U0001f40d", "\\xff", "\\xc3"]


def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    log = make()
    lines = LineSplitter(log, "stdout")
    for _ in range(100):
        lines.feed("x" * 1000)
    assert len(log.text()) > 80_000


@dataclass
class Screen:
    """Writes pieces of a stream at given seconds."""

    now: float = 100.0

    def shown(self, *writes: tuple[float, str], finished: bool = True) -> list[str]:
        log = make()
        lines = LineSplitter(log, "stderr", lambda: self.now)
        for seconds, piece in writes:
            self.now = 100 + seconds
            lines.feed(piece)
        if finished:
            lines.finish()
        return [line.split(" ", 2)[2] for line in log.text().splitlines()]


@pytest.mark.parametrize(
    ("writes", "shown"),
    [
        # As tqdm writes.
        ([(0, "\r 0%"), (0.1, "\r10%"), (0.4, "\r20%"), (0.6, "\r30%"), (0.9, "\r40%\n")], ["20%", "40%"]),
        ([(0, "\r 0%"), (10, "\r10%"), (10.1, "\r20%"), (20, "\r30%")], [" 0%", "20%", "30%"]),
        # As `print(end="\r")` writes.
        ([(0, "0%\r"), (0.1, "10%\r"), (0.6, "20%\r"), (5, "done\n")], ["10%", "20%", "done"]),
        ([(0, "0%\r10%\r20%\r")], ["20%"]),
        ([(0, "0%\r10%\r20%\n")], ["20%"]),
        # Wiped, and left alone.
        ([(0, "\r50%"), (0.1, "\r   \rready\n")], ["ready"]),
        ([(0, "\r50%"), (0.1, "\r   \r\n")], ["50%"]),
        # Both halves of a line end are no line of their own.
        ([(0, "a\r\nb\r"), (0.1, "\nc\r\n")], ["a", "b", "c"]),
        ([(0, "a\n\nb\n")], ["a", "", "b"]),
    ],
)
def test_of_a_line_that_is_drawn_again_the_last_of_each_half_second_is_kept(
    writes: list[tuple[float, str]], shown: list[str]
) -> None:
    assert Screen().shown(*writes) == shown


def test_a_progress_bar_is_shown_while_it_grows() -> None:
    assert Screen().shown((0, "\r 0%"), (1, "\r10%"), (2, "\r20%"), finished=False) == [" 0%", "10%"]


def test_a_real_progress_bar_of_many_redraws_takes_few_lines() -> None:
    log = make()
    lines = LineSplitter(log, "stderr", lambda: 1.0)
    for number in range(10_000):
        lines.feed(f"\r{number / 100:.0f}%|####| {number}/10000")
    lines.feed("\n")
    assert log.text() == f"{STAMP} stderr 100%|####| 9999/10000\n"


def test_the_end_of_a_full_log_says_how_much_was_dropped() -> None:
    log = make(limit=100)
    log.add("stdout", "x" * 40)
    log.add("stdout", "y" * 49)
    log.add("stdout", "z" * 9)
    log.drop(1000)
    log.finish()
    log.finish()
    assert log.room == 0
    assert log.text().splitlines()[-1] == f"{STAMP} taskflow 1060 bytes of output were dropped"
    assert log.text().count("dropped") == 1


def test_an_empty_log_has_no_chunks() -> None:
    log = make()
    LineSplitter(log, "stdout").finish()
    assert log.pending() == []
    assert datetime.now(UTC) > NOON


def test_a_chunk_has_its_number_and_content() -> None:
    log = make()
    log.add("stdout", "x")
    assert log.pending() == [Chunk(1, f"{STAMP} stdout x\n".encode())]


def test_concurrent_writers_lose_nothing() -> None:
    log = AttemptLog(10**9)
    lines = LineSplitter(log, "stdout")
    quick = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write(name: str) -> None:
        for number in range(2000):
            lines.feed(f"<{name}{number}>")

    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(write, "abcd"))
    finally:
        sys.setswitchinterval(quick)
    lines.finish()
    said = "".join(line.split(" stdout ", 1)[1] for line in log.text().splitlines())
    assert sorted(said.removeprefix("<").removesuffix(">").split("><")) == sorted(
        f"{name}{number}" for name in "abcd" for number in range(2000)
    )


def test_what_interrupts_a_writer_may_write_too() -> None:
    """A finalizer or a signal handler runs at any place, in here too."""

    def now() -> datetime:
        if not inside:
            inside.append(True)
            log.add("stdout", "from a finalizer")
        return NOON

    inside: list[bool] = []
    log = AttemptLog(MANY, now)
    log.add("stdout", "from the handler")
    assert sorted(log.text().splitlines()) == [f"{STAMP} stdout from a finalizer", f"{STAMP} stdout from the handler"]


def test_a_writer_waits_for_no_other() -> None:
    """The other may be in a finalizer that waits for a lock which this one holds."""

    def now() -> datetime:
        if threading.current_thread() is other:
            entered.set()
            assert leave.wait(10)
        return NOON

    entered, leave = threading.Event(), threading.Event()
    log = AttemptLog(MANY, now)
    other = threading.Thread(target=lambda: log.add("stderr", "late"))
    other.start()
    assert entered.wait(10)
    log.add("stdout", "early")
    assert log.text() == f"{STAMP} stdout early\n"
    leave.set()
    other.join()
    assert log.text() == f"{STAMP} stdout early\n{STAMP} stderr late\n"
