"""Stores the logs of running attempts in the object store. Readers see a log grow while its attempt runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskflow_core.domain.message import Message
from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.output.attempt_log import AttemptLog, chunk_key
from taskflow_worker.output.capture import OutputCapture

log = get_logger(__name__)
TICK_SECONDS = 0.5
FLUSH_SECONDS = 5.0
"""How long the end of an attempt waits for an object store that does not accept the rest of its log."""


class _Shipment:
    """The log of one attempt while it is shipped."""

    def __init__(self, log: AttemptLog, message: Message) -> None:
        self.log = log
        self.message = message
        self.lock = threading.Lock()
        """One thread at a time stores chunks: a shorter version must not overwrite a longer one."""


class LogShipper:
    """Stores the logs of the attempts that run in this process, from a thread that lives as long as the process.

    An unavailable object store delays nothing: the log waits in memory, up to its limit.

    Args:
        output: captures the handlers' output.
        store: puts bytes under a key; may raise any TaskflowError.
        limit: maximum size of an attempt's log in bytes.
    """

    def __init__(self, output: OutputCapture, store: Callable[[str, bytes], object], limit: int) -> None:
        self._output = output
        self._store = store
        self._limit = limit
        self._open: list[_Shipment] = []
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def shipping(self, message: Message, level: int) -> Iterator[None]:
        """Capture and ship the attempt's output while this context lasts. At its end the whole log is stored."""
        shipment = _Shipment(AttemptLog(self._limit), message)
        with self._lock:
            self._open.append(shipment)
            self._start()
        try:
            with self._output.capture(shipment.log, level):
                yield
        finally:
            with self._lock:
                self._open.remove(shipment)
            self._finish(shipment)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._ship_loop, name="logs", daemon=True)
            self._thread.start()

    def _ship_loop(self) -> None:
        while not self._idle.wait(TICK_SECONDS):
            with self._lock:
                current = list(self._open)
            for shipment in current:
                try:
                    self._ship(shipment)
                except Exception:
                    # The other logs must still be shipped.
                    log.exception("log_shipping_failed")

    def _finish(self, shipment: _Shipment) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        while not self._ship(shipment):
            if time.monotonic() > deadline:
                missing = sum(len(chunk.content) for chunk in shipment.log.pending())
                message = shipment.message
                log.warning("log_lost", uid=message.uid, attempt=message.attempt, bytes=missing)
                return
            time.sleep(TICK_SECONDS)

    def _ship(self, shipment: _Shipment) -> bool:
        """Store what is not stored yet. True if the whole log is stored."""
        message = shipment.message
        with shipment.lock:
            for chunk in shipment.log.pending():
                key = chunk_key(message, chunk.number)
                try:
                    self._store(key, chunk.content)
                except TaskflowError as error:
                    log.warning("log_postponed", key=key, error=str(error))
                    return False
                shipment.log.stored(chunk)
        return True
