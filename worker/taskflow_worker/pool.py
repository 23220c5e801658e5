from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from taskflow_core.ledger.worker import Holding
from taskflow_worker.board import Slot
from taskflow_worker.output import Output
from taskflow_worker.runner import Runner, Tools

MakeTools = Callable[[Output], Tools]
"""Makes what the runners of the calling process share, given what hears their handlers."""


class Pool(Protocol):
    """What the slots of a worker are, and what its main process can do to the one that runs an attempt."""

    celery: str
    """Celery's name of it, or the place of its class."""
    fate: str
    """What becomes of a handler that does not stop in time, in words."""

    def runner(self) -> Runner:
        """The runner of the calling process or thread, which is of this pool."""

    def interrupt(self, runner: int) -> None:
        """Main process: the time of its attempt is over; raise something in the handler, where that can be done."""

    def end(self, holding: Holding, slot: Slot) -> None:
        """Main process: its handler did not stop. The slot is doomed and the end is told: nothing that it does counts any more."""

    def lost(self) -> int:
        """Main process: how many runners were given up and have not come back."""

    def leave(self) -> None:
        """Main process: end this worker now, whatever still runs."""

    def ended(self, code: int) -> int:
        """Main process: Celery ended with this exit code; the worker's own."""
