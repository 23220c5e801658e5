"""What a handler prints and logs, on its way into the log of its attempt."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from taskflow_worker.attempt_log import AttemptLog, Lines

attempt_logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("taskflow.attempt"),
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)
"""By it TaskFlow itself says something in the log of an attempt, however its program has set up structlog."""
_NOT_THE_HANDLER = ("taskflow_worker.", "taskflow_core.", "celery.app.trace", "celery.worker")
_KNOWN_OF_ALL = (
    "level",
    "logger",
    "ts",
    "component",
    "task",
    "uid",
    "attempt",
    "trace_id",
    "_record",
    "_from_structlog",
)
_READ_BYTES = 64 * 1024
_STREAMS = ("stdout", "stderr")


class _Ear:
    """Where one attempt is heard: its log, and the lines that its streams have begun."""

    def __init__(self, log: AttemptLog, level: int) -> None:
        self.log = log
        self.level = level
        self.lines = {tag: Lines(log, tag) for tag in _STREAMS}

    def finish(self) -> None:
        """A line without an end is ended."""
        for lines in self.lines.values():
            lines.finish()


class _Current(Protocol):
    """Whose words those are that somebody says now."""

    def get(self) -> _Ear | None:
        """None: nobody's."""

    def set(self, ear: _Ear | None, /) -> object:
        """From now on."""


class _Only:
    """One attempt at a time: whatever the process says is its, by any thread."""

    def __init__(self) -> None:
        self._ear: _Ear | None = None

    def get(self) -> _Ear | None:
        return self._ear

    def set(self, ear: _Ear | None, /) -> None:
        self._ear = ear


_OF_CONTEXT: ContextVar[_Ear | None] = ContextVar("taskflow_attempt", default=None)
"""Several attempts at a time: each is what is said in its context, and in copies of that."""


class Routed(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`: writes to the log of the current attempt, else where it wrote before.

    One object for all attempts, since loggers and libraries keep the stream that they once saw.
    """

    def __init__(self, original: TextIO, tag: str, current: _Current) -> None:
        self._original = original
        self._tag = tag
        self._current = current
        self.buffer = _RoutedBytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the log."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Nothing that is printed raises."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """Descriptor of the original stream, for programs that are started with it."""
        return self._original.fileno()

    def write(self, text: str, /) -> int:
        """Append text."""
        ear = self._current.get()
        if ear is None:
            return self._original.write(text)
        ear.lines[self._tag].feed(text)
        return len(text)

    def flush(self) -> None:
        """The log has nothing to flush; the original may have."""
        if self._current.get() is None and not self._original.closed:
            self._original.flush()


class _RoutedBytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, text: Routed) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        data = bytes(piece)
        self._text.write(data.decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        self._text.flush()


class _Records(logging.Handler):
    """Log records of the current attempt, but for those of the machinery."""

    def __init__(self, current: _Current) -> None:
        super().__init__()
        self._current = current
        self._pid = os.getpid()
        self.setFormatter(_FORMATTER)

    def emit(self, record: logging.LogRecord) -> None:
        ear = self._current.get()
        forked = os.getpid() != self._pid
        if (
            record.name.startswith(_NOT_THE_HANDLER)
            or (ear is None and not forked)
            or (ear is not None and record.levelno < ear.level)
        ):
            return
        try:
            text = self.format(record)
            if ear is not None:
                ear.log.add(f"{record.levelname} {record.name}:", text)
            else:
                # Forked by the handler: see `Output`.
                sys.stderr.write(f"{record.levelname} {record.name}: {text}\n")
        except Exception:  # noqa: BLE001 - logging never fails its caller; this prints the cause on stderr
            self.handleError(record)


def _as_text(_: WrappedLogger, __: str, fields: EventDict) -> str:
    event, exception = fields.pop("event", ""), fields.pop("exception", None)
    parts = [str(event), *(f"{key}={value!r}" for key, value in fields.items() if key not in _KNOWN_OF_ALL)]
    return " ".join(parts) + (f"\n{exception}" if exception else "")


_FORMATTER = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[structlog.processors.format_exc_info], processors=[_as_text]
)


class Descriptors:
    """Catches what does not pass through `sys.stdout`: C libraries and programs that the handler starts.

    Descriptors 1 and 2 lead to files in memory while an attempt runs; a pipe would block a writer when nobody reads.
    """

    def __init__(self, descriptors: Sequence[tuple[int, str]] = ((1, "stdout"), (2, "stderr"))) -> None:
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._open: tuple[_Caught, ...] = ()

    @contextmanager
    def into(self, log: AttemptLog) -> Iterator[None]:
        """Lead them to the log."""
        saved = [(number, os.dup(number)) for number, _ in self._descriptors]
        # New files for each attempt: what a former one left running writes to the old.
        self._open = tuple(_Caught(log, number, tag) for number, tag in self._descriptors)
        try:
            yield
        finally:
            for number, original in saved:
                os.dup2(original, number, inheritable=True)
                os.close(original)
            self.drain()
            with self._lock:
                caught, self._open = self._open, ()
            for each in caught:
                each.close()

    def drain(self) -> None:
        """Take over what was written since. Called by the attempt's thread and by the one that ships."""
        with self._lock:
            for each in self._open:
                each.drain()


class _Caught:
    """One descriptor, led to a file in memory."""

    def __init__(self, log: AttemptLog, number: int, tag: str) -> None:
        self._log = log
        self._lines = Lines(log, tag)
        self._position = 0
        self._file = os.memfd_create(f"taskflow-{tag}", os.MFD_CLOEXEC)
        # Appending, so that writers go on at the beginning after the file was emptied.
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        os.dup2(self._file, number, inheritable=True)

    def drain(self) -> None:
        while piece := os.pread(self._file, _READ_BYTES, self._position):
            self._position += len(piece)
            self._lines.feed_bytes(piece)
            if self._log.full:
                os.ftruncate(self._file, 0)
                self._position = 0

    def close(self) -> None:
        self._lines.finish()
        os.close(self._file)


class Output:
    """All ways in which a handler says something, led into the log of its attempt.

    Args:
        descriptors: also what does not pass through Python's streams; not in a process that is not ours alone, and not together.
        together: several attempts at a time. An attempt is then heard where its context (`contextvars`) is, and what threads say that
            a handler started without it goes where it went before. Otherwise all that the process says is its.
    """

    def __init__(self, descriptors: Descriptors | None = None, *, together: bool = False) -> None:
        self._descriptors = descriptors
        self._together = together
        self._current: _Current = _OF_CONTEXT if together else _Only()
        self._streams: tuple[Routed, Routed] | None = None
        self._lock = threading.Lock()
        # In a process that a handler forks, the lock of the log may be held by a thread that does not exist there.
        os.register_at_fork(after_in_child=lambda: self._current.set(None))

    def install(self) -> None:
        """Several attempts at a time: stand before the process's streams for good. Best before anything keeps them; may be repeated."""
        with self._lock:
            if self._streams is None:
                self._streams = self._made()
                sys.stdout, sys.stderr = self._streams
                logging.getLogger().addHandler(_Records(self._current))

    @contextmanager
    def into(self, log: AttemptLog, level: int = logging.INFO) -> Iterator[None]:
        """Lead them to the log, log records of this level and above."""
        ear = _Ear(log, level)
        with self._installed(level):
            self._current.set(ear)
            try:
                if self._descriptors is None:
                    yield
                else:
                    with self._descriptors.into(log):
                        yield
            finally:
                self._current.set(None)
                ear.finish()

    @contextmanager
    def _installed(self, level: int) -> Iterator[None]:
        root = logging.getLogger()
        if self._together:
            self.install()
            # Setting a level makes all loggers forget what they cached, so not for nothing.
            if level < root.level:
                root.setLevel(level)
            yield
            return
        self._streams = self._streams or self._made()
        before, records, quiet = (sys.stdout, sys.stderr), _Records(self._current), root.level
        sys.stdout, sys.stderr = self._streams
        root.addHandler(records)
        if level < quiet:
            root.setLevel(level)
        try:
            yield
        finally:
            root.removeHandler(records)
            if level < quiet:
                root.setLevel(quiet)
            sys.stdout, sys.stderr = before

    def _made(self) -> tuple[Routed, Routed]:
        stdout, stderr = _STREAMS
        return Routed(sys.stdout, stdout, self._current), Routed(sys.stderr, stderr, self._current)

    def drain(self) -> None:
        """Take over what was written to the descriptors since."""
        if self._descriptors is not None:
            self._descriptors.drain()
