"""The pool of threads of the worker's own process. docs/decisions/0007-threads-pool.md lists the trade-offs."""

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
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.process.housekeeping import ThreadHousekeeping
from taskflow_worker.process.pool import MakeResources
from taskflow_worker.process.process_tree import end_started_by
from taskflow_worker.process.runner import Runner
from taskflow_worker.process.shared_slots import SharedSlots, Slot

log = get_logger(__name__)
PROCESS_OUTPUT = OutputCapture(concurrent=True)
"""One for the whole process, because its streams are."""
EXIT_LOST_THREAD = 1
"""Exit code of a worker that ends because a thread does not return."""


class CeleryThreads(TaskPool):  # type: ignore[misc]
    """Celery's thread pool, in which each execution has its own context and reports the thread that runs it."""

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        """See Celery's `TaskPool`, which reports the process instead of the thread."""
        run = partial(apply_target, target, args, kwargs, callback, accept_callback, getpid=threading.get_native_id)
        return ApplyResult(self.executor.submit(copy_context().run, run))


@dataclass(frozen=True)
class _GivenUpThread:
    slot: Slot
    holding: Holding

    @property
    def still_runs(self) -> bool:
        return self.slot.runs(self.holding.runner, self.holding.member)


class Threads:
    """Runners that are threads. A thread cannot be killed: one that does not stop is given up.

    If it does not return to the pool either, the worker drains and ends.

    Args:
        slots: one for each thread.
        make: see `MakeResources`.
        return_seconds: how long a thread that was given up may take to return.
        stop: lets this worker drain and end.
    """

    celery_pool = f"{__name__}:{CeleryThreads.__name__}"
    forced_end = "was given up, since a thread cannot be killed"

    def __init__(
        self, slots: SharedSlots, make: MakeResources, return_seconds: float, stop: Callable[[], None]
    ) -> None:
        self._slots = slots
        self._resources = make(PROCESS_OUTPUT)
        self._return_seconds = return_seconds
        self._stop = stop
        self._indices = itertools.count()
        self._own = threading.local()
        self._given_up: list[_GivenUpThread] = []
        self._lock = threading.Lock()
        self._failed = False

    def runner(self) -> Runner:
        """See `Pool`."""
        found: Runner | None = getattr(self._own, "runner", None)
        if found is None:
            # Celery's pool never has more threads than slots, and none of them ends before the pool does.
            slot = self._slots.slot(next(self._indices))
            found = self._own.runner = Runner(
                threading.get_native_id(), slot, self._resources, ThreadHousekeeping(self._restart)
            )
        return found

    def prepare(self) -> None:
        """See `Pool`."""

    def tend(self) -> None:
        """Nothing: the runners live as long as the worker."""

    def broken(self, why: str) -> None:
        """See `Pool`."""
        ThreadHousekeeping(self._restart).broken(why)

    def interrupt(self, runner: int) -> None:
        """Do nothing. An exception raised in another thread cannot end a blocking call, and may break locks."""

    def terminate(self, holding: Holding, slot: Slot) -> None:
        """See `RunnerControl`."""
        given_up = _GivenUpThread(slot, holding)
        with self._lock:
            self._given_up.append(given_up)
        log.warning("attempt_given_up", member=holding.member, thread=holding.runner, seconds=self._return_seconds)
        # It may be waiting for a program.
        end_started_by(holding.runner, grace=0)
        # Let it continue: reports of this attempt are refused, and the thread is free for the next one.
        slot.clear_terminating()
        timer = threading.Timer(self._return_seconds, self._check_returned, (given_up,))
        timer.daemon = True
        timer.start()

    def held_up(self, runner: int) -> None:  # noqa: ARG002 - the port's signature
        """See `RunnerControl`. The worker drains and ends."""
        self._restart()

    def given_up(self) -> int:
        """See `Pool`."""
        with self._lock:
            self._given_up = [each for each in self._given_up if each.still_runs]
            return len(self._given_up)

    def exit_now(self) -> None:
        """See `Pool`. Skips Python's own shutdown, which waits for running threads."""
        self._exit(EXIT_LOST_THREAD if self._failed else 0)

    def finish(self, code: int) -> int:
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

    def _check_returned(self, given_up: _GivenUpThread) -> None:
        if given_up.still_runs:
            log.error("thread_lost", member=given_up.holding.member, thread=given_up.holding.runner)
            self._restart()

    def _restart(self) -> None:
        if not self._failed:
            self._failed = True
            self._stop()
