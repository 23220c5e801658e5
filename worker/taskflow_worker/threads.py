"""Slots that are threads of the worker's own process. docs/decisions/0007-threads-pool.md says what that costs."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool

from taskflow_core.ledger.worker import Holding
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.board import Board, Slot
from taskflow_worker.output import Output
from taskflow_worker.pool import MakeTools
from taskflow_worker.runner import Runner

log = get_logger(__name__)
OUTPUT = Output(together=True)
"""Of the whole process, since its streams are."""
LOST_THREAD = 1
"""Exit code of a worker that ends because of a thread that does not come back."""


class CeleryThreads(TaskPool):  # type: ignore[misc]
    """Celery's pool of threads, in which each execution has a context of its own and says which thread runs it."""

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        """See Celery's `TaskPool`, which gives the process in place of the thread."""
        run = partial(apply_target, target, args, kwargs, callback, accept_callback, getpid=threading.get_native_id)
        return ApplyResult(self.executor.submit(copy_context().run, run))


@dataclass(frozen=True)
class _GivenUp:
    slot: Slot
    holding: Holding

    @property
    def away(self) -> bool:
        return self.slot.runs(self.holding.runner, self.holding.member)


class Threads:
    """A thread cannot be killed: one that does not stop is given up, and if it does not come back the worker ends for its sake.

    Args:
        board: with a slot for each.
        make: see `MakeTools`.
        return_seconds: how long a thread that was given up may take to come back.
        stop: lets this worker drain and end.
    """

    celery = f"{__name__}:{CeleryThreads.__name__}"
    fate = "was given up, since a thread cannot be killed"

    def __init__(self, board: Board, make: MakeTools, return_seconds: float, stop: Callable[[], None]) -> None:
        self._board = board
        self._tools = make(OUTPUT)
        self._return_seconds = return_seconds
        self._stop = stop
        self._places = itertools.count()
        self._own = threading.local()
        self._given_up: list[_GivenUp] = []
        self._lock = threading.Lock()
        self._failed = False

    def runner(self) -> Runner:
        """See `Pool`."""
        found: Runner | None = getattr(self._own, "runner", None)
        if found is None:
            # Celery's pool never makes more threads than it has slots, and none of them ends before the pool does.
            slot = self._board.slot(next(self._places))
            found = self._own.runner = Runner(threading.get_native_id(), slot, self._tools)
        return found

    def interrupt(self, runner: int) -> None:
        """Nothing. What Python can raise in another thread reaches no call that waits, and breaks locks that others share."""

    def end(self, holding: Holding, slot: Slot) -> None:
        """See `Pool`."""
        given_up = _GivenUp(slot, holding)
        with self._lock:
            self._given_up.append(given_up)
        log.warning("attempt_given_up", member=holding.member, thread=holding.runner, seconds=self._return_seconds)
        # It may go on now: what it says of the attempt is refused, and with the next one it is of use again.
        slot.spare()
        timer = threading.Timer(self._return_seconds, self._judge, (given_up,))
        timer.daemon = True
        timer.start()

    def lost(self) -> int:
        """See `Pool`."""
        with self._lock:
            self._given_up = [each for each in self._given_up if each.away]
            return len(self._given_up)

    def leave(self) -> None:
        """See `Pool`. Without Python's own end, which would wait for threads that still run."""
        self._exit(LOST_THREAD if self._failed else 0)

    def ended(self, code: int) -> int:
        """See `Pool`."""
        others = [
            each.name for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon
        ]
        if others:
            log.info("threads_left", names=others)
            self._exit(code)
        return code

    def _exit(self, code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    def _judge(self, given_up: _GivenUp) -> None:
        if given_up.away and not self._failed:
            log.error("thread_lost", member=given_up.holding.member, thread=given_up.holding.runner)
            self._failed = True
            self._stop()
