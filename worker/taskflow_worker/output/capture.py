"""Captures what a handler prints and logs, and writes it to the log of its attempt."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from taskflow_worker.output.attempt_log import AttemptLog, LineSplitter
from taskflow_worker.output.descriptors import Descriptors

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
"""TaskFlow's own entries in the log of an attempt. Independent of how the program configures structlog."""
_NOT_THE_HANDLER = ("taskflow_worker.", "taskflow_core.", "celery.app.trace", "celery.worker")
_COMMON_FIELDS = (
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
_STREAMS = ("stdout", "stderr")


class _Sink:
    """Where the output of one attempt goes: its log, and the unfinished lines of its streams."""

    def __init__(self, log: AttemptLog, level: int) -> None:
        self.log = log
        self.level = level
        self.lines = {tag: LineSplitter(log, tag) for tag in _STREAMS}

    def finish(self) -> None:
        """Write the unfinished lines."""
        for lines in self.lines.values():
            lines.finish()


class _CurrentSink(Protocol):
    """Which attempt the output of this moment belongs to."""

    def get(self) -> _Sink | None:
        """The sink, or None if the output belongs to no attempt."""

    def set(self, sink: _Sink | None, /) -> object:
        """Set the sink for all output from now on."""


class _ProcessSink:
    """One attempt at a time: all output of the process belongs to it, from any thread."""

    def __init__(self) -> None:
        self._sink: _Sink | None = None

    def get(self) -> _Sink | None:
        return self._sink

    def set(self, sink: _Sink | None, /) -> None:
        self._sink = sink


_CONTEXT_SINK: ContextVar[_Sink | None] = ContextVar("taskflow_attempt", default=None)
"""Several attempts at a time: output belongs to the attempt of its context, or of the context it was copied from."""


class RoutedStream(io.TextIOBase):
    """Replaces `sys.stdout` or `sys.stderr`: writes to the current attempt's log, or else to the original stream.

    One object serves all attempts, because loggers and libraries keep the stream that they found first.
    """

    def __init__(self, original: TextIO, tag: str, current: _CurrentSink) -> None:
        self._original = original
        self._tag = tag
        self._current = current
        self.buffer = _RoutedBytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The log's encoding."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Printing never raises."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """Descriptor of the original stream, for child processes."""
        return self._original.fileno()

    def write(self, text: str, /) -> int:
        """Write text."""
        sink = self._current.get()
        if sink is None:
            return self._original.write(text)
        sink.lines[self._tag].feed(text)
        return len(text)

    def flush(self) -> None:
        """Flush the original stream. The log needs no flush."""
        if self._current.get() is None and not self._original.closed:
            self._original.flush()


class _RoutedBytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, text: RoutedStream) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        data = bytes(piece)
        self._text.write(data.decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        self._text.flush()


class _AttemptLogHandler(logging.Handler):
    """Writes log records to the log of the current attempt, except records of the worker itself."""

    def __init__(self, current: _CurrentSink) -> None:
        super().__init__()
        self._current = current
        self._pid = os.getpid()
        self.setFormatter(_FORMATTER)

    def emit(self, record: logging.LogRecord) -> None:
        sink = self._current.get()
        forked = os.getpid() != self._pid
        if (
            record.name.startswith(_NOT_THE_HANDLER)
            or (sink is None and not forked)
            or (sink is not None and record.levelno < sink.level)
        ):
            return
        try:
            text = self.format(record)
            if sink is not None:
                sink.log.add(f"{record.levelname} {record.name}:", text)
            else:
                # A process that the handler forked: see `OutputCapture`.
                sys.stderr.write(f"{record.levelname} {record.name}: {text}\n")
        except Exception:  # noqa: BLE001 - logging never fails its caller; this prints the cause on stderr
            self.handleError(record)


def _as_text(_: WrappedLogger, __: str, fields: EventDict) -> str:
    event, exception = fields.pop("event", ""), fields.pop("exception", None)
    parts = [str(event), *(f"{key}={value!r}" for key, value in fields.items() if key not in _COMMON_FIELDS)]
    return " ".join(parts) + (f"\n{exception}" if exception else "")


_FORMATTER = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[structlog.processors.format_exc_info], processors=[_as_text]
)


class OutputCapture:
    """Captures every kind of output of a handler: streams, log records and, optionally, file descriptors.

    Args:
        descriptors: captures what does not pass through Python's streams. Only in a process of our own that runs one
            attempt at a time.
        concurrent: several attempts at a time. Output then belongs to the attempt of its context (`contextvars`);
            threads that a handler starts without that context write where they did before. Otherwise all output of the
            process belongs to the one attempt.
    """

    def __init__(self, descriptors: Descriptors | None = None, *, concurrent: bool = False) -> None:
        self._descriptors = descriptors
        self._concurrent = concurrent
        self._current: _CurrentSink = _CONTEXT_SINK if concurrent else _ProcessSink()
        self._streams: tuple[RoutedStream, RoutedStream] | None = None
        self._lock = threading.Lock()
        # In a process that a handler forks, a thread that does not exist there may hold the lock of the log.
        os.register_at_fork(after_in_child=lambda: self._current.set(None))

    def install(self) -> None:
        """For concurrent attempts: replace the process's streams for good. Call it early; it may be called again."""
        with self._lock:
            if self._streams is None:
                self._streams = self._routed_streams()
                sys.stdout, sys.stderr = self._streams
                logging.getLogger().addHandler(_AttemptLogHandler(self._current))

    @contextmanager
    def capture(self, log: AttemptLog, level: int = logging.INFO) -> Iterator[None]:
        """Write all output to the log while this context lasts: log records of this level and above."""
        sink = _Sink(log, level)
        with self._installed(level):
            self._current.set(sink)
            try:
                if self._descriptors is None:
                    yield
                else:
                    with self._descriptors.capture(log):
                        yield
            finally:
                self._current.set(None)
                sink.finish()

    @contextmanager
    def _installed(self, level: int) -> Iterator[None]:
        root = logging.getLogger()
        if self._concurrent:
            self.install()
            # Set only if needed: setting a level clears the caches of all loggers.
            if level < root.level:
                root.setLevel(level)
            yield
            return
        self._streams = self._streams or self._routed_streams()
        streams_before, level_before = (sys.stdout, sys.stderr), root.level
        handler = _AttemptLogHandler(self._current)
        sys.stdout, sys.stderr = self._streams
        root.addHandler(handler)
        if level < level_before:
            root.setLevel(level)
        try:
            yield
        finally:
            root.removeHandler(handler)
            if level < level_before:
                root.setLevel(level_before)
            sys.stdout, sys.stderr = streams_before

    def _routed_streams(self) -> tuple[RoutedStream, RoutedStream]:
        stdout, stderr = _STREAMS
        return RoutedStream(sys.stdout, stdout, self._current), RoutedStream(sys.stderr, stderr, self._current)

    def drain(self) -> None:
        """Copy new output of the descriptors to the log."""
        if self._descriptors is not None:
            self._descriptors.drain()
