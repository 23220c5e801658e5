"""A process of Celery's prefork pool as handlers expect a process to be, and its replacement by a new one."""

from __future__ import annotations

import multiprocessing.process
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from billiard.common import _shutdown_cleanup
from billiard.pool import EX_FAILURE, EX_RECYCLE, TASK
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.asynpool import Worker as AsynWorker
from celery.concurrency.prefork import TaskPool

from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.process.process_tree import adopt_orphans

log = get_logger(__name__)
_MAIN_PROCESS = multiprocessing.process.current_process()
_of_this_process: dict[int, str] = {}
"""Why the process with this id has to be replaced. By id, so that a forked process does not have it."""


def replace_this_process(why: str) -> None:
    """Let a new process take the place of the calling one, after what it does now. The first reason stays."""
    _of_this_process.setdefault(os.getpid(), why)


def replacing_if_it_fails(run: Callable[..., Any]) -> Callable[..., Any]:
    """What Celery runs for a message, by which the calling process is replaced if Celery itself fails.

    The errors of a task are results for Celery, so this is one that the next message would meet too: Celery's modules
    were imported anew, for example. Its messages would be lost one after the other, and no Task would say why.
    """

    def run_or_replace(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except BaseException as error:
            replace_this_process(f"Celery failed outside of its task: {type(error).__name__}: {error}")
            raise

    return run_or_replace


class _Worker(AsynWorker):  # type: ignore[misc]
    """What runs in a pool process."""

    def _make_child_methods(self, *args: Any) -> None:
        super()._make_child_methods(*args)
        wait_for_job: Callable[[], Any] = self.wait_for_job  # type: ignore[has-type]  # of the base class

        def wait_unless_replaced() -> Any:
            if why := _of_this_process.get(os.getpid()):
                log.info("process_replaced", pid=os.getpid(), why=why)
                sys.exit(EX_RECYCLE)
            request = wait_for_job()
            if request and request[0] == TASK:
                job, part, run, args, kwargs = request[1]
                return TASK, (job, part, replacing_if_it_fails(run), args, kwargs)
            return request

        # Here the result of the last job is sent, and no other is taken. Celery gives a job that was already meant for
        # this process to another one, as with `worker_max_tasks_per_child`.
        self.wait_for_job = wait_unless_replaced

    def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
        if exitcode == EX_RECYCLE:
            # As billiard's own, but without its wait of a second, in which this slot would run nothing.
            try:
                if self.on_exit is not None:
                    self.on_exit(pid, exitcode)
            finally:
                os._exit(EX_RECYCLE)
        super()._do_exit(pid, exitcode, exc)


class _Processes(AsynPool):  # type: ignore[misc]
    Worker = _Worker

    def maintain_pool(self) -> None:
        """Runs every 5 seconds and when a process ended. Finds also what billiard never learns of."""
        forget_vanished(self, _vanished)
        super().maintain_pool()


class CeleryPrefork(TaskPool):  # type: ignore[misc]
    """Celery's prefork pool, whose processes are replaced on demand and are never waited for in vain."""

    Pool = _Processes


def forget_vanished(pool: Any, vanished: Callable[[int], bool]) -> None:
    """Free the slots of processes that are gone although nobody told billiard.

    An imported module may have waited for one of them (`os.waitpid(-1)` in a handler of SIGCHLD): then billiard takes
    it for running, for good. And a job may have been accepted by a process that is not of the pool.
    """
    for process in pool._pool:  # noqa: SLF001 - billiard has no public names for this
        popen = process._popen  # noqa: SLF001
        if popen is not None and popen.returncode is None and vanished(popen.pid):
            log.error("process_vanished", pid=popen.pid)
            popen.returncode = EX_FAILURE
    members = {process.pid for process in pool._pool}  # noqa: SLF001
    for job in list(pool._cache.values()):  # noqa: SLF001
        for pid in job.worker_pids():
            if pid not in members and not job.ready() and vanished(pid):
                log.error("runner_vanished", pid=pid)
                pool.on_job_process_lost(job, pid, EX_FAILURE)


def _vanished(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def become_runner() -> None:
    """Prepare the calling process, which runs one attempt at a time, for the code of handlers. Call it once."""
    # A process group of its own, by which its descendants are told from those of the main process.
    with suppress(PermissionError):
        os.setpgid(0, 0)
    adopt_orphans()
    # Celery's pool processes are daemons for `multiprocessing`, and those may have no children. What the rule is for,
    # children that stay behind, is seen to by `process_tree`.
    multiprocessing.process._current_process = _MAIN_PROCESS  # type: ignore[attr-defined]  # noqa: SLF001
    # New interpreters (`spawn`, `forkserver`, joblib) would import the whole worker, where handlers are never defined.
    main = sys.modules["__main__"]
    main.__spec__ = None
    vars(main).pop("__file__", None)
    # Celery ignores SIGINT, and programs inherit what is ignored. A handler that does nothing is not inherited.
    signal.signal(signal.SIGINT, _do_nothing)
    os.register_at_fork(after_in_child=_reset_signals)


def _do_nothing(*_: object) -> None:
    """Handle a signal."""


def _reset_signals() -> None:
    """In a process that a handler forks: signals do what they do in a new program, unless the handler set them."""
    if signal.getsignal(signal.SIGINT) is _do_nothing:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is _shutdown_cleanup:
            signal.signal(number, signal.SIG_DFL)
