"""The attempts that this worker runs, as its main process knows them, and the heartbeat that renews their leases."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Heartbeat, Holding, WorkerLedger
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.process.memory import MemoryKills

log = get_logger(__name__)


class Leases:
    """Tracks the attempts that this worker runs and renews their leases from a thread.

    The main process renews, not the process that runs the handler: a handler that holds the GIL for a minute keeps its
    lease, and an attempt whose process died loses it. A thread renews, not Celery's event loop, which blocks while the
    broker connection is lost.

    Args:
        ledger: used by this thread only.
        interval: seconds between renewals.
        active: whether Celery still counts a request as running.
        on_heartbeat: receives each answer, which carries stop requests.
        claimed: whether the runner has claimed the attempt, and not only received its message.
    """

    def __init__(
        self,
        ledger: WorkerLedger,
        interval: float,
        active: Callable[[object], bool],
        on_heartbeat: Callable[[Heartbeat], None] = lambda _: None,
        claimed: Callable[[Holding], bool] = lambda _: True,
    ) -> None:
        self._ledger = ledger
        self._interval = interval
        self._active = active
        self._on_heartbeat = on_heartbeat
        self._claimed = claimed
        self._memory_kills = MemoryKills()
        self._held: dict[Holding, weakref.ref[object]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_loop, name="heartbeat", daemon=True)
        self._epoch = ""

    def learn_epoch(self) -> None:
        """Read the epoch of Redis' data. Call it before any attempt is accepted.

        Raises:
            Unavailable: Redis does not answer.
        """
        self._epoch = self._ledger.heartbeat((), "").epoch

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing. Leases that were not surrendered expire."""
        self._stop.set()
        # A worker that is stopped before it is ready never started the thread.
        if self._thread.ident is not None:
            self._thread.join(timeout=self._interval + 10)

    def accepted(self, request: object, member: str, runner: int, token: str = "") -> None:
        """A runner took the request. Celery must already count it as running."""
        with self._lock:
            self._held[Holding(member, runner, token)] = weakref.ref(request)

    def drop(self, holding: Holding) -> None:
        """Stop tracking an attempt whose end is already reported."""
        with self._lock:
            self._held.pop(holding, None)

    def process_died(self, request: object, message: str) -> None:
        """The pool process that ran the request died: report it at once instead of letting the lease expire."""
        self.failed(request, self._memory_kills.failure(message))

    def failed(self, request: object, failure: Failure) -> None:
        """The runner ended the request without a report: report this failure, unless it has ended the attempt."""
        with self._lock:
            lost = [holding for holding, reference in self._held.items() if reference() is request]
            for holding in lost:
                del self._held[holding]
        for holding in lost:
            self._surrender(holding, EventKind.LOST, failure)

    def release_all(self) -> int:
        """Give up everything that still runs, so that other workers can run it. Returns the number of attempts."""
        failure = Failure(
            reason=Reason.DRAIN,
            message="the worker was told to stop and the handler did not end within the drain period",
        )
        return sum(self._surrender(holding, EventKind.RELEASED, failure) for holding in self.current())

    def current(self) -> list[Holding]:
        """The attempts that run now."""
        with self._lock:
            for holding, reference in list(self._held.items()):
                request = reference()
                if request is None or not self._active(request):
                    del self._held[holding]
            return list(self._held)

    def _surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        try:
            held = self._ledger.surrender(holding, kind, failure)
        except Unavailable as error:
            # The lease expires instead.
            log.warning("surrender_failed", member=holding.member, error=str(error))
            return False
        log.info("attempt_surrendered", member=holding.member, reason=failure.reason, held=held)
        return held

    def _renew_loop(self) -> None:
        while not self._stop.wait(self._interval):
            started = time.monotonic()
            self._memory_kills.look()
            current = self.current()
            # After Redis lost its data, an attempt that was only delivered must not be entered again: its claim will be
            # refused, and another worker may run it.
            running = [holding for holding in current if self._claimed(holding)]
            try:
                answer = self._ledger.heartbeat(running, self._epoch)
            except Unavailable as error:
                log.warning("heartbeat_failed", error=str(error))
                continue
            if len(running) == len(current):
                # Otherwise an attempt may have been claimed just before the data was lost: the next heartbeat must
                # enter it.
                self._epoch = answer.epoch
            for member in answer.fenced:
                log.warning("attempt_fenced", member=member)
            self._on_heartbeat(answer)
            if (took := time.monotonic() - started) > self._interval:
                log.warning("heartbeat_slow", seconds=round(took, 1))
