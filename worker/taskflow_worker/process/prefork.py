"""The pool of processes. A process whose handler does not stop is killed, together with the programs it started."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from billiard import current_process

from taskflow_core.ledger.worker import Holding
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.output.capture import OutputCapture
from taskflow_worker.output.descriptors import Descriptors
from taskflow_worker.process.housekeeping import ProcessHousekeeping
from taskflow_worker.process.pool import MakeResources
from taskflow_worker.process.pool_process import CeleryPrefork, become_runner, replace_this_process
from taskflow_worker.process.process_tree import (
    adopt_orphans,
    end_orphans,
    kill_with_descendants,
    own_children,
    send,
)
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

    celery_pool = f"{CeleryPrefork.__module__}:{CeleryPrefork.__name__}"
    forced_end = "was killed"

    def __init__(
        self, slots: SharedSlots, make: MakeResources, index: Callable[[], int] = _index_in_celery_pool
    ) -> None:
        self._slots = slots
        self._make = make
        self._index = index
        self._runner: Runner | None = None
        self._children_before: frozenset[int] = frozenset()

    def prepare(self) -> None:
        """See `Pool`."""
        adopt_orphans()
        # Those of imported modules.
        self._children_before = frozenset(own_children())

    def tend(self) -> None:
        """See `Pool`."""
        end_orphans(self._slots.runners, self._children_before)

    def runner(self) -> Runner:
        """See `Pool`."""
        pid = os.getpid()
        # A connection must not cross a fork: each pool process opens its own with its first attempt.
        if self._runner is None or self._runner.ident != pid:
            slot = self._slots.slot(self._index())
            # In this order: see `end_orphans`.
            slot.register(pid)
            become_runner()
            resources = self._make(OutputCapture(Descriptors()))
            self._runner = Runner(pid, slot, resources, ProcessHousekeeping(replace_this_process))
        return self._runner

    def broken(self, why: str) -> None:
        """See `Pool`."""
        replace_this_process(why)

    def interrupt(self, runner: int) -> None:
        """See `RunnerControl`."""
        send(runner, SOFT_SIGNAL)

    def terminate(self, holding: Holding, slot: Slot) -> None:  # noqa: ARG002 - the port's signature
        """See `RunnerControl`."""
        log.warning("attempt_killed", member=holding.member, pid=holding.runner)
        kill_with_descendants(holding.runner)

    def held_up(self, runner: int) -> None:
        """See `RunnerControl`."""
        kill_with_descendants(runner)

    def given_up(self) -> int:
        """Zero: a process can always be killed."""
        return 0

    def exit_now(self) -> None:
        """See `Pool`. SIGQUIT is Celery's cold shutdown."""
        os.kill(os.getpid(), signal.SIGQUIT)

    def finish(self, code: int) -> int:
        """See `Pool`. Celery has stopped the processes, or nothing that they do counts any more."""
        for pid in self._slots.runners() & own_children():
            kill_with_descendants(pid)
        self.tend()
        return code
