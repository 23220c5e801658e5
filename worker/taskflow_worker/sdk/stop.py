"""How a running attempt sees that it must stop. The process side that sends the request is in `process/slot_stop`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from taskflow_core.domain.phases import Reason


class Stop(Protocol):
    """The stop request of one attempt."""

    def requested(self) -> Reason | None:
        """Why the attempt must stop, or None while it may continue."""

    def interrupts(self, error: type[BaseException]) -> AbstractContextManager[None]:
        """Inside this context, raise `error` in the calling thread when the attempt times out."""

    def restart_timeout(self, seconds: float) -> None:
        """Give the attempt a new timeout, because the next item of a chunk starts."""


class FixedStop:
    """A stop request that is known from the start, for attempts that run without a worker."""

    def __init__(self, reason: Reason | None = None) -> None:
        self._reason = reason

    def requested(self) -> Reason | None:
        """Return the given reason."""
        return self._reason

    @contextmanager
    def interrupts(self, error: type[BaseException]) -> Iterator[None]:  # noqa: ARG002 - the port's signature
        """Never interrupt."""
        yield

    def restart_timeout(self, seconds: float) -> None:
        """Do nothing: there is no timeout."""
