"""How the process that runs an attempt learns that it is to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from taskflow_core.domain.phases import Reason
from taskflow_worker.board import Slot

SOFT_SIGNAL = signal.SIGUSR1
"""Sent to the pool process when the time of its attempt is over; Celery's pool uses the same for its soft time limit."""


class Stop(Protocol):
    """Whether an attempt is to stop."""

    def asked(self) -> Reason | None:
        """Why it is to stop; None while it may go on."""

    def interrupts(self, error: type[BaseException]) -> AbstractContextManager[None]:
        """While this lasts, `error` is raised in the calling thread when the time of the attempt is over."""

    def restart(self, seconds: float) -> None:
        """The time of the attempt begins anew: another item of a chunk begins."""


class Fixed:
    """Decided from the start: for what runs without a worker."""

    def __init__(self, reason: Reason | None = None) -> None:
        self._reason = reason

    def asked(self) -> Reason | None:
        """As given."""
        return self._reason

    @contextmanager
    def interrupts(self, error: type[BaseException]) -> Iterator[None]:  # noqa: ARG002 - the port's signature
        """Nothing interrupts."""
        yield

    def restart(self, seconds: float) -> None:
        """Its time is never over."""


class SlotStop:
    """By the slot that the main process writes to; made anew for each attempt, in the main thread of the pool process."""

    def __init__(self, slot: Slot, member: str) -> None:
        self._slot = slot
        self._member = member
        self._error: type[BaseException] | None = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(SOFT_SIGNAL, self._on_signal)

    def asked(self) -> Reason | None:
        """See `Stop`."""
        return self._slot.asked(self._member)

    @contextmanager
    def interrupts(self, error: type[BaseException]) -> Iterator[None]:
        """See `Stop`. A thread that is inside C code is interrupted when it comes back from there."""
        self._error = error
        try:
            yield
        finally:
            self._error = None

    def restart(self, seconds: float) -> None:
        """See `Stop`."""
        self._slot.restart(time.monotonic() + seconds)

    def _on_signal(self, *_: object) -> None:
        error, self._error = self._error, None
        # The signal names no attempt: it may have been meant for the one before.
        if error is None:
            return
        if self.asked() is Reason.ATTEMPT_TIMEOUT:
            raise error
        self._error = error
