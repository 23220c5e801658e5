"""Captures what a handler prints and logs, and writes it to the log of its attempt."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol

import structlog
from structlog.typing import EventDict, WrappedLogger

from taskflow_worker.output.attempt_log import AttemptLog, LineSplitter
from taskflow_worker.output.descriptors import Descriptors
from taskflow_worker.output.own_logging import ATTEMPTS, disabled, enable, is_own
from taskflow_worker.output.streams import RoutedStream

attempt_logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    ATTEMPTS.getLogger("taskflow.attempt"),
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)
"""TaskFlow's own entries in the log of an attempt. Independent of how the program configures logging and
structlog."""
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
        """Write the unfinished lines, and what there was no room for."""
        for lines in self.lines.values():
            lines.finish()
        self.log.finish()


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


class _AttemptLogHandler(logging.Handler):
    """Writes log records to the log of the current attempt.

    Except records of the worker itself, and those that a handler of the program's own prints to the same log.
    """

    def __init__(self, current: _CurrentSink, prints: Callable[[logging.Handler], bool]) -> None:
        super().__init__()
        self._current = current
        self._prints = prints
        self._pid = os.getpid()
        self.setFormatter(_FORMATTER)

    def emit(self, record: logging.LogRecord) -> None:
        sink = self._current.get()
        forked = os.getpid() != self._pid
        if (
            is_own(record.name)
            or (sink is None and not forked)
            or (sink is not None and record.levelno < sink.level)
            or self._is_printed(record)
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

    def _is_printed(self, record: logging.LogRecord) -> bool:
        found = logging.root.manager.loggerDict.get(record.name)
        logger: logging.Logger | None = found if isinstance(found, logging.Logger) else logging.root
        if record.name == attempt_logger.name:
            return False
        while logger is not None:
            for handler in logger.handlers:
                # What its filters say is not known before they have been asked, and asking may change the record.
                if record.levelno >= handler.level and not handler.filters and self._prints(handler):
                    return True
            logger = logger.parent if logger.propagate else None
        return False


def _as_text(_: WrappedLogger, __: str, fields: EventDict) -> str:
    event, exception = fields.pop("event", ""), fields.pop("exception", None)
    parts = [str(event), *(f"{key}={value!r}" for key, value in fields.items() if key not in _COMMON_FIELDS)]
    return " ".join(parts) + (f"\n{exception}" if exception else "")


_FORMATTER = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[structlog.processors.format_exc_info], processors=[_as_text]
)


def _flush(*streams: Any) -> None:
    for stream in streams:
        with suppress(Exception):
            stream.flush()


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
        self._handler = _AttemptLogHandler(self._current, self._prints)
        self._attempts = 0
        # In a process that a handler forks, a thread that does not exist there may hold the lock of the log.
        os.register_at_fork(after_in_child=lambda: self._current.set(None))

    def install(self) -> None:
        """For concurrent attempts: replace the process's streams for good. Call it early; it may be called again."""
        with self._lock:
            if self._streams is None or not self._attempts:
                # Again, since an attempt may have replaced them too. One that runs may still need its own.
                self._streams = self._streams or self._routed_streams()
                sys.stdout, sys.stderr = self._streams
            self._add_handler()

    @contextmanager
    def capture(self, log: AttemptLog, level: int = logging.INFO) -> Iterator[None]:
        """Write all output to the log while this context lasts: log records of this level and above."""
        sink = _Sink(log, level)
        with self._installed(level):
            self._current.set(sink)
            try:
                with self._descriptors_captured(log):
                    try:
                        yield
                    finally:
                        # A handler may have put another stream there, around ours.
                        _flush(sys.stdout, sys.stderr)
            finally:
                self._current.set(None)
                sink.finish()

    @contextmanager
    def _descriptors_captured(self, log: AttemptLog) -> Iterator[None]:
        if self._descriptors is None:
            yield
            return
        # What somebody printed before belongs to no attempt. The process's first streams write to the descriptors.
        _flush(sys.__stdout__, sys.__stderr__)
        with self._descriptors.capture(log):
            try:
                yield
            finally:
                _flush(sys.__stdout__, sys.__stderr__)

    @contextmanager
    def _installed(self, level: int) -> Iterator[None]:
        root = logging.getLogger()
        if self._concurrent:
            self.install()
            with self._lock:
                self._attempts += 1
            # Set only if needed: setting a level clears the caches of all loggers.
            if level < root.level:
                root.setLevel(level)
            try:
                yield
            finally:
                enable()
                with self._lock:
                    self._attempts -= 1
            return
        self._streams = self._streams or self._routed_streams()
        streams_before, level_before, severity = (sys.stdout, sys.stderr), root.level, root.manager.disable
        off = disabled()
        sys.stdout, sys.stderr = self._streams
        self._add_handler()
        if level < level_before:
            root.setLevel(level)
        try:
            yield
        finally:
            for logger in (root, ATTEMPTS.root):
                logger.removeHandler(self._handler)
            if level < level_before:
                root.setLevel(level_before)
            logging.disable(severity)
            enable(stay_disabled=off)
            sys.stdout, sys.stderr = streams_before

    def _add_handler(self) -> None:
        # Not only once: configuring logging removes the handlers of the root logger.
        for logger in (logging.getLogger(), ATTEMPTS.root):
            logger.addHandler(self._handler)

    def _routed_streams(self) -> tuple[RoutedStream, RoutedStream]:
        def routed(stream: Any, tag: str) -> RoutedStream:
            def lines() -> LineSplitter | None:
                sink = self._current.get()
                return None if sink is None else sink.lines[tag]

            return RoutedStream(stream, f"<{tag}>", lines)

        stdout, stderr = _STREAMS
        return routed(sys.stdout, stdout), routed(sys.stderr, stderr)

    def _prints(self, handler: logging.Handler) -> bool:
        """Whether a handler writes to a stream or descriptor that is captured."""
        # Rich's handler has a console.
        stream: Any = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
        if handler is self._handler or stream is None:
            return False
        buffer = getattr(stream, "buffer", None)
        if self._streams is not None and any(buffer is each.buffer for each in self._streams):
            return True
        try:
            return self._descriptors is not None and self._descriptors.captures(stream.fileno())
        except (AttributeError, OSError, ValueError):
            return False
