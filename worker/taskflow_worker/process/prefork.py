"""The pool of processes. A process whose handler does not stop is killed, together with the programs it started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from billiard import current_process

from taskflow_core.ledger.worker import Holding
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.output.descriptors import Descriptors
from taskflow_worker.process.pool import MakeResources
from taskflow_worker.process.runner import Runner
from taskflow_worker.process.shared_slots import SharedSlots, Slot
from taskflow_worker.process.slot_stop import SOFT_SIGNAL

log = get_logger(__name__)


def _index_in_celery_pool() -> int:
    return int(current_process().index)


class Prefork:
    """Runners that are processes of Celery's prefork pool.

    Args:
        slots: one for each process.
        make: see `MakeResources`.
        index: the index of the calling process in the pool: 0, 1, ...
    """

    celery_pool = "prefork"
    forced_end = "was killed"

    def __init__(
        self, slots: SharedSlots, make: MakeResources, index: Callable[[], int] = _index_in_celery_pool
    ) -> None:
        self._slots = slots
        self._make = make
        self._index = index
        self._runner: Runner | None = None

    def runner(self) -> Runner:
        """See `Pool`."""
        pid = os.getpid()
        # A connection must not cross a fork: each pool process opens its own with its first attempt.
        if self._runner is None or self._runner.ident != pid:
            # A process group of its own, so that a kill also ends the programs that a handler started.
            with suppress(PermissionError):
                os.setpgid(0, 0)
            resources = self._make(OutputCapture(Descriptors()))
            self._runner = Runner(pid, self._slots.slot(self._index()), resources)
        return self._runner

    def interrupt(self, runner: int) -> None:
        """See `RunnerControl`."""
        _signal(os.kill, runner, SOFT_SIGNAL)

    def terminate(self, holding: Holding, slot: Slot) -> None:  # noqa: ARG002 - the port's signature
        """See `RunnerControl`."""
        log.warning("attempt_killed", member=holding.member, pid=holding.runner)
        # The pool process leads its own group, so programs that the handler started end with it.
        if not _signal(os.killpg, holding.runner, signal.SIGKILL):
            _signal(os.kill, holding.runner, signal.SIGKILL)

    def given_up(self) -> int:
        """Zero: a process can always be killed."""
        return 0

    def exit_now(self) -> None:
        """See `Pool`. SIGQUIT is Celery's cold shutdown."""
        os.kill(os.getpid(), signal.SIGQUIT)

    def finish(self, code: int) -> int:
        """See `Pool`."""
        return code


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> bool:
    try:
        send(pid, number)
    except ProcessLookupError:
        return False
    return True
