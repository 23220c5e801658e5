from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from billiard import current_process

from taskflow_core.ledger.worker import Holding
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.board import Board, Slot
from taskflow_worker.output import Descriptors, Output
from taskflow_worker.pool import MakeTools
from taskflow_worker.runner import Runner
from taskflow_worker.stopping import SOFT_SIGNAL

log = get_logger(__name__)


def _place_in_celerys_pool() -> int:
    return int(current_process().index)


class Prefork:
    """Slots that are processes: one that does not stop is killed, and with it the programs that its handler started.

    Args:
        board: with a slot for each.
        make: see `MakeTools`.
        place: of the calling process in the pool, 0, 1 ...
    """

    celery = "prefork"
    fate = "was killed"

    def __init__(self, board: Board, make: MakeTools, place: Callable[[], int] = _place_in_celerys_pool) -> None:
        self._board = board
        self._make = make
        self._place = place
        self._runner: Runner | None = None

    def runner(self) -> Runner:
        """See `Pool`."""
        pid = os.getpid()
        # A connection must not cross a fork: each pool process makes its own at its first task.
        if self._runner is None or self._runner.ident != pid:
            # A group of its own, so that a kill takes the programs with it that a handler started.
            with suppress(PermissionError):
                os.setpgid(0, 0)
            self._runner = Runner(pid, self._board.slot(self._place()), self._make(Output(Descriptors())))
        return self._runner

    def interrupt(self, runner: int) -> None:
        """See `Pool`."""
        _signal(os.kill, runner, SOFT_SIGNAL)

    def end(self, holding: Holding, slot: Slot) -> None:  # noqa: ARG002 - the port's signature
        """See `Pool`."""
        log.warning("attempt_killed", member=holding.member, pid=holding.runner)
        # The pool process leads a group of its own, so programs that the handler started end with it.
        if not _signal(os.killpg, holding.runner, signal.SIGKILL):
            _signal(os.kill, holding.runner, signal.SIGKILL)

    def lost(self) -> int:
        """None: a process can always be killed."""
        return 0

    def leave(self) -> None:
        """See `Pool`. SIGQUIT is Celery's cold shutdown."""
        os.kill(os.getpid(), signal.SIGQUIT)

    def ended(self, code: int) -> int:
        """See `Pool`."""
        return code


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> bool:
    try:
        send(pid, number)
    except ProcessLookupError:
        return False
    return True
