"""Stop requests that reach a running attempt through its shared slot, and by a signal when it times out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from taskflow_core.domain.phases import Reason
from taskflow_worker.process.shared_slots import Slot

SOFT_SIGNAL = signal.SIGUSR1
"""Sent to the pool process when its attempt times out. Celery's pool uses the same signal for its soft time limit."""


class SlotStop:
    """Implements `Stop` with the slot that the main process writes to. Create one for each attempt, in its thread."""

    def __init__(self, slot: Slot, member: str) -> None:
        self._slot = slot
        self._member = member
        self._error: type[BaseException] | None = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(SOFT_SIGNAL, self._on_signal)

    def requested(self) -> Reason | None:
        """See `Stop`."""
        return self._slot.stop_requested(self._member)

    @contextmanager
    def interrupts(self, error: type[BaseException]) -> Iterator[None]:
        """See `Stop`. A thread inside C code is interrupted when it returns from there."""
        self._error = error
        try:
            yield
        finally:
            self._error = None

    def restart_timeout(self, seconds: float) -> None:
        """See `Stop`."""
        self._slot.restart_timeout(time.monotonic() + seconds)

    def _on_signal(self, *_: object) -> None:
        error, self._error = self._error, None
        # The signal names no attempt: it may have been meant for the one before.
        if error is None:
            return
        if self.requested() is Reason.ATTEMPT_TIMEOUT:
            raise error
        self._error = error
