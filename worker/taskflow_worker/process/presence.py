"""Reports this worker to the operator, and opens or closes its intake as the operator asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from taskflow_core.errors import Unavailable
from taskflow_core.ledger.presence import PRESENCE_SECONDS, Presence
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.process.intake import Intake
from taskflow_worker.readiness import Mark

log = get_logger(__name__)
_LEAVE_SECONDS = 3.0
"""How long a shutdown waits for a Redis that does not answer. A report that is not withdrawn expires."""


@dataclass(frozen=True)
class Load:
    """The requests that this worker has received and not finished."""

    busy: int
    """All of them."""
    waiting: int
    """Those that no runner has accepted yet."""


class PresenceReporter:
    """Reports from its own thread, and switches the intake. Without Redis the intake keeps its state.

    Args:
        presence: used by this thread only.
        load: the worker's current load. Called from this thread.
        clock: monotonic seconds.
        mark: what the readiness probe reads.
    """

    def __init__(
        self,
        presence: Presence,
        load: Callable[[], Load],
        clock: Callable[[], float] = time.monotonic,
        mark: Mark | None = None,
    ) -> None:
        self._presence = presence
        self._load = load
        self._clock = clock
        self._mark = mark or Mark(presence.name)
        self._changed = threading.Event()
        self._intake = Intake(self._changed.set)
        self._claimed_at: float | None = None
        self._stopped: bool | None = None
        self._leaving = False
        self._thread = threading.Thread(target=self._report_loop, name="presence", daemon=True)

    def install(self, app: Celery) -> None:
        """Install the intake into the application, before its worker runs."""
        self._intake.install(app)

    def shut_intake(self) -> None:
        """The worker was told to stop: take no more messages. Call it from the main thread."""
        self._intake.shut()

    def start(self) -> None:
        """Start reporting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reporting and withdraw the last report."""
        self._leaving = True
        self._changed.set()
        # Celery also calls this for a worker that is stopped before it is ready: its thread was never started.
        if self._thread.ident is not None:
            self._thread.join(timeout=_LEAVE_SECONDS)

    def accepted(self) -> None:
        """A runner accepted a request."""
        self._claimed_at = self._clock()

    def report(self) -> None:
        """Report once and follow the operator's answer.

        Raises:
            Unavailable: Redis does not answer.
        """
        # Read the intake before the load. In the other order a message could arrive in between and be missed.
        quiet = self._intake.quiet
        load = self._load()
        claimed = self._claimed_at
        stopped = self._presence.report(
            busy=load.busy,
            serving=not quiet or load.waiting > 0,
            claimed_ago_ms=None if claimed is None else int((self._clock() - claimed) * 1000),
        )
        if stopped is not self._stopped:
            log.info("intake_stopped" if stopped else "intake_open")
            self._stopped = stopped
        self._intake.switch(on=not stopped)

    def _report_loop(self) -> None:
        while not self._leaving:
            # Before the report, so that a change during the report leads to another one.
            self._changed.clear()
            if (why := self._safely(self.report)) is None:
                self._mark.ready()
            else:
                self._mark.not_ready(f"the worker cannot report: {why}")
            self._changed.wait(PRESENCE_SECONDS)
        self._mark.remove()
        self._safely(self._presence.leave)

    def _safely(self, act: Callable[[], None]) -> str | None:
        """Returns what went wrong, if anything did."""
        try:
            act()
        except Unavailable as error:
            log.warning("presence_failed", error=str(error))
            return str(error)
        except Exception as error:
            # Go on after any error: the operator replaces a worker that does not report.
            log.exception("presence_failed")
            return type(error).__name__
        return None
