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


class _Shipment:
    """The log of one attempt, on its way."""

    def __init__(self, log: AttemptLog, message: Message) -> None:
        self.log = log
        self.message = message
        self.lock = threading.Lock()
        """One at a time stores of it: a shorter part must not come after a longer one."""


class LogShipper:
    """Stores the logs of the attempts that run in this process while they run, from a thread that lives as long as the process.

    An object store that is away delays nothing: a log waits in memory, where it has at most its limit.

    Args:
        output: what leads a handler's words into a log.
        store: puts bytes under a key; may raise any of our errors.
        limit: bytes that an attempt may say.
    """

    def __init__(self, output: Output, store: Callable[[str, bytes], object], limit: int) -> None:
        self._output = output
        self._store = store
        self._limit = limit
        self._open: list[_Shipment] = []
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def shipping(self, message: Message, level: int) -> Iterator[None]:
        """While this lasts, what the attempt says is its log. At the end all of it is stored."""
        shipment = _Shipment(AttemptLog(self._limit), message)
        with self._lock:
            self._open.append(shipment)
            self._start()
        try:
            with self._output.into(shipment.log, level):
                yield
        finally:
            with self._lock:
                self._open.remove(shipment)
            self._finish(shipment)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._ship_for_ever, name="logs", daemon=True)
            self._thread.start()

    def _ship_for_ever(self) -> None:
        while not self._idle.wait(TICK_SECONDS):
            with self._lock:
                current = list(self._open)
            for shipment in current:
                try:
                    self._output.drain()
                    self._ship(shipment)
                except Exception:
                    # Other logs still have to be shipped.
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
        """Store what is not stored; whether all of it is."""
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
