from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from taskflow_core.errors import Unavailable
from taskflow_core.ledger.presence import PRESENCE_SECONDS, Presence
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.intake import Intake

log = get_logger(__name__)
_LEAVE_SECONDS = 3.0
"""An end does not wait longer for a Redis that does not answer: a report that stays grows old."""


@dataclass(frozen=True)
class Load:
    """Requests in the hands of this worker."""

    busy: int
    """All of them."""
    waiting: int
    """Those that no pool process has accepted yet."""


class Attendant:
    """The thread by which the operator sees this worker, and which opens and closes its intake as the operator asks.

    Without Redis the intake stays as it was.

    Args:
        presence: of this thread alone.
        load: what the worker has in its hands; called from this thread.
        clock: seconds, monotonic.
    """

    def __init__(
        self, presence: Presence, load: Callable[[], Load], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._presence = presence
        self._load = load
        self._clock = clock
        self._news = threading.Event()
        self._intake = Intake(self._news.set)
        self._claimed_at: float | None = None
        self._stopped: bool | None = None
        self._leaving = False
        self._thread = threading.Thread(target=self._attend, name="presence", daemon=True)

    def watch(self, app: Celery) -> None:
        """Before the worker runs: take its intake in hand."""
        self._intake.watch(app)

    def take_no_more(self) -> None:
        """The worker was told to end. From the main thread."""
        self._intake.end()

    def start(self) -> None:
        """Start reporting."""
        self._thread.start()

    def stop(self) -> None:
        """Report no more, and take back the last report."""
        self._leaving = True
        self._news.set()
        self._thread.join(timeout=_LEAVE_SECONDS)

    def accepted(self) -> None:
        """A pool process accepted a request."""
        self._claimed_at = self._clock()

    def report(self) -> None:
        """Say how it is, and do what was asked.

        Raises:
            Unavailable: Redis does not answer.
        """
        # First whether anything can arrive, then what did: the other way round, it could arrive in between.
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

    def _attend(self) -> None:
        while not self._leaving:
            # Before the report, so that what changes during it is reported next.
            self._news.clear()
            self._safely(self.report)
            self._news.wait(PRESENCE_SECONDS)
        self._safely(self._presence.leave)

    def _safely(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Unavailable as error:
            log.warning("presence_failed", error=str(error))
        except Exception:
            # Whatever it was, a worker that is not seen would be replaced.
            log.exception("presence_failed")
