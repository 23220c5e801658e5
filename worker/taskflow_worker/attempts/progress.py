"""Sends the progress and the checkpoints of a running attempt. Sending is rate-limited and never blocks the handler."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from taskflow_core.domain.events import Advance
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
INTERVAL_SECONDS = 1.0


class ProgressReporter:
    """Sends what a handler reports, from its own thread: at most once a second, the latest value wins.

    The handler never waits: while Redis is unavailable, the latest value is kept. The thread starts with the first
    report. A process that the handler forks sends nothing: it has no such thread, and the connection is not its own.

    Args:
        send: sends a value; may raise `Unavailable`.
        interval: seconds between two calls of `send`.
    """

    def __init__(self, send: Callable[[Advance], None], interval: float = INTERVAL_SECONDS) -> None:
        self._send = send
        self._interval = interval
        self._pid = os.getpid()
        # Re-entrant: a signal handler or a finalizer that interrupts a thread in here may report too.
        self._lock = threading.RLock()
        self._pending: Advance | None = None
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def report(self, advance: Advance) -> None:
        """Accept a value. Parts that are None keep their earlier value."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._pending = advance if self._pending is None else _merged(self._pending, advance)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_loop, name="progress", daemon=True)
                self._thread.start()
        self._wake.set()

    def close(self) -> Advance | None:
        """Stop the thread. Returns what is not sent yet, for the caller to send."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        return self._take()

    def _take(self) -> Advance | None:
        with self._lock:
            taken, self._pending = self._pending, None
            return taken

    def _send_loop(self) -> None:
        while True:
            self._wake.wait()
            if self._closed.is_set():
                return
            self._wake.clear()
            advance = self._take()
            if advance is not None:
                self._try(advance)
            self._closed.wait(self._interval)

    def _try(self, advance: Advance) -> None:
        try:
            self._send(advance)
        except Unavailable as error:
            log.warning("progress_postponed", error=str(error))
            with self._lock:
                self._pending = advance if self._pending is None else _merged(advance, self._pending)
            self._wake.set()


def _merged(old: Advance, new: Advance) -> Advance:
    return Advance(
        progress=old.progress if new.progress is None else new.progress,
        checkpoint=old.checkpoint if new.checkpoint is None else new.checkpoint,
    )
