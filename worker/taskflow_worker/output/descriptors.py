"""Captures file descriptors 1 and 2: what C libraries print, and programs that a handler starts."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.output.attempt_log import AttemptLog, LineSplitter

log = get_logger(__name__)
LOOK_SECONDS = 0.05
"""Time between two looks at new output. Not more is in memory than is written meanwhile and has room in the log."""
_READ_BYTES = 64 * 1024
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""From linux/falloc.h."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fflush.argtypes = (ctypes.c_void_p,)
try:
    _stdout: ctypes.c_void_p | None = ctypes.c_void_p.in_dll(_libc, "stdout")
except ValueError:
    _stdout = None
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def _flush_c_output() -> None:
    """Write what `printf` keeps of standard output. It would go to the attempt in which its buffer is full."""
    # Not of all streams: a thread that reads from one has it locked.
    if _stdout is not None:
        _libc.fflush(_stdout)


class Descriptors:
    """Redirects descriptors to files in memory while an attempt runs.

    A pipe would block a writer when nobody reads: for ever, if it is C code in this process that holds the interpreter.
    A thread moves what is written to the log, and frees the memory.
    """

    def __init__(self, descriptors: Sequence[tuple[int, str]] = ((1, "stdout"), (2, "stderr"))) -> None:
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._open: tuple[_CapturedDescriptor, ...] = ()
        self._capturing = threading.Event()
        self._thread: threading.Thread | None = None

    def captures(self, number: int) -> bool:
        """Whether this descriptor is redirected while an attempt runs."""
        return any(number == each for each, _ in self._descriptors)

    @contextmanager
    def capture(self, attempt_log: AttemptLog) -> Iterator[None]:
        """Redirect the descriptors to the log while this context lasts."""
        self._start()
        _flush_c_output()
        saved: list[tuple[int, int]] = []
        captured: list[_CapturedDescriptor] = []
        try:
            for number, tag in self._descriptors:
                saved.append((number, os.dup(number)))
                # New files for each attempt: processes that an earlier attempt left running have the old ones.
                captured.append(_CapturedDescriptor(attempt_log, number, tag))
            with self._lock:
                self._open = tuple(captured)
            self._capturing.set()
            yield
        finally:
            _flush_c_output()
            self._capturing.clear()
            for number, original in saved:
                os.dup2(original, number, inheritable=True)
                os.close(original)
            with self._lock:
                self._open = ()
            for each in captured:
                each.close()

    def drain(self) -> None:
        """Move new output to the log."""
        with self._lock:
            for each in self._open:
                each.drain()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="output", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while True:
            self._capturing.wait()
            try:
                self.drain()
            except Exception:
                # The output of the next attempts must still be read.
                log.exception("output_not_read")
            time.sleep(LOOK_SECONDS)


class _CapturedDescriptor:
    """One descriptor, redirected to a file in memory."""

    def __init__(self, attempt_log: AttemptLog, number: int, tag: str) -> None:
        self._log = attempt_log
        self._lines = LineSplitter(attempt_log, tag)
        # Bytes of the file: what is read, what of that is given back, and where begins what has no room in the log.
        self._position, self._freed = 0, 0
        self._no_room: int | None = None
        self._file = os.memfd_create(f"taskflow-{tag}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # In append mode writers never write into what is freed.
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        os.dup2(self._file, number, inheritable=True)

    def drain(self) -> None:
        """Move new output to the log, and free its memory."""
        while True:
            size = os.fstat(self._file).st_size
            if self._log.full:
                self._no_room = self._position
            elif self._no_room is None and size - self._position > self._log.room:
                self._no_room = self._position + self._log.room
            if self._no_room is not None:
                # While a part of it is read, a program may write a thousand times as much.
                self._free(self._no_room, size)
                if self._position >= self._no_room:
                    # What follows does not go on with the line before the gap.
                    self._lines.finish()
                    self._log.drop(size - self._position)
                    self._position, self._no_room = size, None
            end = size if self._no_room is None else self._no_room
            piece = os.pread(self._file, min(_READ_BYTES, end - self._position), self._position)
            if not piece:
                break
            self._position += len(piece)
            self._lines.feed_bytes(piece)
        # Only whole pages are freed, and the last one may have been read in part before.
        self._free(self._freed - self._freed % mmap.PAGESIZE, self._position)
        self._freed = self._position

    def _free(self, start: int, end: int) -> None:
        # Without this it still works, but the memory is used until the attempt ends.
        if end > start:
            _libc.fallocate(self._file, _KEEP_SIZE | _PUNCH_HOLE, start, end - start)

    def close(self) -> None:
        """Read the rest. Programs that outlive the attempt cannot write any more: nobody would read or free it."""
        with suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
        self.drain()
        os.ftruncate(self._file, 0)
        self._lines.finish()
        os.close(self._file)
