"""Captures file descriptors 1 and 2: what C libraries print, and programs that a handler starts."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from taskflow_worker.output.attempt_log import AttemptLog, LineSplitter

_READ_BYTES = 64 * 1024


class Descriptors:
    """Redirects descriptors to files in memory while an attempt runs. A pipe would block a writer when nobody reads."""

    def __init__(self, descriptors: Sequence[tuple[int, str]] = ((1, "stdout"), (2, "stderr"))) -> None:
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._open: tuple[_CapturedDescriptor, ...] = ()

    @contextmanager
    def capture(self, log: AttemptLog) -> Iterator[None]:
        """Redirect the descriptors to the log while this context lasts."""
        saved = [(number, os.dup(number)) for number, _ in self._descriptors]
        # New files for each attempt: processes that an earlier attempt left running write to the old ones.
        self._open = tuple(_CapturedDescriptor(log, number, tag) for number, tag in self._descriptors)
        try:
            yield
        finally:
            for number, original in saved:
                os.dup2(original, number, inheritable=True)
                os.close(original)
            self.drain()
            with self._lock:
                captured, self._open = self._open, ()
            for each in captured:
                each.close()

    def drain(self) -> None:
        """Copy new output to the log. Called by the attempt's thread and by the thread that ships logs."""
        with self._lock:
            for each in self._open:
                each.drain()


class _CapturedDescriptor:
    """One descriptor, redirected to a file in memory."""

    def __init__(self, log: AttemptLog, number: int, tag: str) -> None:
        self._log = log
        self._lines = LineSplitter(log, tag)
        self._position = 0
        self._file = os.memfd_create(f"taskflow-{tag}", os.MFD_CLOEXEC)
        # In append mode writers continue at the start of the file after it is truncated.
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
