"""Leaves a runner as it was before an attempt, or has it replaced."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.process.clean_state import ProcessState, short_of_descriptors
from taskflow_worker.process.left_threads import left_behind
from taskflow_worker.process.process_tree import adopt_orphans, end_below, end_started_by, has_children

log = get_logger(__name__)


class Housekeeping(Protocol):
    """What is done around each attempt of a runner."""

    def around(self, package: str) -> AbstractContextManager[None]:
        """Afterwards, what the attempt started has ended and what it changed is restored.

        Args:
            package: top-level package of the handler.
        """

    def broken(self, why: str) -> None:
        """Something failed outside of the handler: the runner should run no further attempt."""


class ProcessHousekeeping:
    """For a process that runs one attempt at a time, in its main thread.

    Args:
        replace: lets a new process take the place of the calling one, for this reason.
    """

    def __init__(self, replace: Callable[[str], None]) -> None:
        self._replace = replace

    @contextmanager
    def around(self, package: str) -> Iterator[None]:
        """See `Housekeeping`."""
        # An earlier attempt may have undone it.
        adopt_orphans()
        threads = set(threading.enumerate())
        state = ProcessState()
        try:
            yield
        finally:
            if changed := state.restore():
                self._replace(f"the attempt changed for good: {', '.join(changed)}")
            if has_children() and end_below(os.getpid()):
                # Objects for these processes may be left, such as an executor that is broken now.
                self._replace("the attempt left processes running")
            if left := left_behind(threads, {package}):
                self._replace(f"the attempt left threads running: {', '.join(left)}")
            if short_of_descriptors():
                self._replace("hardly any file descriptor is free")

    def broken(self, why: str) -> None:
        """See `Housekeeping`."""
        self._replace(why)


class ThreadHousekeeping:
    """For a thread beside others, whose process belongs to all of them.

    Args:
        restart: lets the worker end its running attempts and start anew.
    """

    def __init__(self, restart: Callable[[], None]) -> None:
        self._restart = restart

    @contextmanager
    def around(self, package: str) -> Iterator[None]:  # noqa: ARG002 - the port's signature
        """Ends what the calling thread started. Who started what a double fork leaves cannot be told."""
        try:
            yield
        finally:
            if has_children():
                end_started_by(threading.get_native_id())

    def broken(self, why: str) -> None:
        """See `Housekeeping`."""
        log.error("worker_broken", why=why)
        self._restart()
