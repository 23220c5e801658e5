"""The port to a pool: its runners are processes (`prefork`) or threads (`threads`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from taskflow_core.ledger.worker import Holding
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.process.runner import Runner, RunnerResources
from taskflow_worker.process.shared_slots import Slot

MakeResources = Callable[[OutputCapture], RunnerResources]
"""Builds what the runners of the calling process share, given the capture of their output."""


class RunnerControl(Protocol):
    """What the main process can do to the runner of an attempt, apart from requesting a stop."""

    forced_end: str
    """What happens to a handler that does not stop in time, for messages: "was killed"."""

    def interrupt(self, runner: int) -> None:
        """The attempt timed out: raise an exception in the handler, where that is possible."""

    def terminate(self, holding: Holding, slot: Slot) -> None:
        """The handler did not stop. Its slot is marked and its end is reported: nothing it does counts any more."""

    def held_up(self, runner: int) -> None:
        """The runner's attempt has ended long ago, and it does not take another."""


class Pool(RunnerControl, Protocol):
    """The runners of a worker. All methods but `runner` and `broken` are called in the main process."""

    celery_pool: str
    """Celery's name of the pool, or the location of its class."""

    def runner(self) -> Runner:
        """The runner of the calling process or thread, which belongs to this pool."""

    def prepare(self) -> None:
        """Called once, before the first runner starts."""

    def tend(self) -> None:
        """End what runners that died have left. Called from time to time, by any thread."""

    def broken(self, why: str) -> None:
        """Called in a runner: something failed outside of the handler, so it should run no further attempt."""

    def given_up(self) -> int:
        """The number of runners that were given up and still run."""

    def exit_now(self) -> None:
        """End this worker now, whatever still runs."""

    def finish(self, code: int) -> int:
        """Clean up after Celery ended with this exit code. Returns the worker's exit code."""
