from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskflow_core.domain.message import Message
from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.attempt_log import AttemptLog, chunk_key
from taskflow_worker.output import Output

log = get_logger(__name__)
TICK_SECONDS = 0.5
FLUSH_SECONDS = 5.0
"""How long the end of an attempt waits for an object store that does not take the rest of its log."""


class LogShipper:
    """Stores the log of the attempt that runs in this process while it runs, from a thread that lives as long as the process.

    An object store that is away delays nothing: the log waits in memory, where it has at most its limit.

    Args:
        output: what leads a handler's words into a log.
        store: puts bytes under a key; may raise any of our errors.
        limit: bytes that an attempt may say.
    """

    def __init__(self, output: Output, store: Callable[[str, bytes], object], limit: int) -> None:
        self._output = output
        self._store = store
        self._limit = limit
        self._current: tuple[AttemptLog, Message] | None = None
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def shipping(self, message: Message, level: int) -> Iterator[None]:
        """While this lasts, what the process says is the log of that attempt. At the end all of it is stored."""
        attempt_log = AttemptLog(self._limit)
        self._current = attempt_log, message
        self._start()
        try:
            with self._output.into(attempt_log, level):
                yield
        finally:
            with self._lock:
                self._current = None
            self._finish(attempt_log, message)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._ship_for_ever, name="logs", daemon=True)
            self._thread.start()

    def _ship_for_ever(self) -> None:
        while not self._idle.wait(TICK_SECONDS):
            with self._lock:
                if self._current is not None:
                    try:
                        self._output.drain()
                        self._ship(*self._current)
                    except Exception:
                        # The log of the next attempt still has to be shipped.
                        log.exception("log_shipping_failed")

    def _finish(self, attempt_log: AttemptLog, message: Message) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        while attempt_log.pending() and not self._ship(attempt_log, message):
            if time.monotonic() > deadline:
                missing = sum(len(chunk.content) for chunk in attempt_log.pending())
                log.warning("log_lost", uid=message.uid, attempt=message.attempt, bytes=missing)
                return
            time.sleep(TICK_SECONDS)

    def _ship(self, attempt_log: AttemptLog, message: Message) -> bool:
        for chunk in attempt_log.pending():
            key = chunk_key(message, chunk.number)
            try:
                self._store(key, chunk.content)
            except TaskflowError as error:
                log.warning("log_postponed", key=key, error=str(error))
                return False
            attempt_log.stored(chunk)
        return True
