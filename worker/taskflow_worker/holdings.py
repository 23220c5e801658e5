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

log = get_logger(__name__)


class Holdings:
    """What this worker runs, as its main process knows it, and the thread that renews the leases.

    The main process renews, not the process that runs the handler: a handler that holds the GIL for a minute keeps its lease,
    one whose process died loses it. A thread, not Celery's event loop: that one blocks while the broker connection is lost.

    Args:
        ledger: of this thread alone.
        interval: seconds between renewals.
        active: whether Celery still counts a request as running.
        hear: takes each answer: what somebody wants stopped.
        begun: whether its runner has claimed it, and not only received its message.
    """

    def __init__(
        self,
        ledger: WorkerLedger,
        interval: float,
        active: Callable[[object], bool],
        hear: Callable[[Heartbeat], None] = lambda _: None,
        begun: Callable[[Holding], bool] = lambda _: True,
    ) -> None:
        self._ledger = ledger
        self._interval = interval
        self._active = active
        self._hear = hear
        self._begun = begun
        self._held: dict[Holding, weakref.ref[object]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="heartbeat", daemon=True)
        self._epoch = ""

    def learn_epoch(self) -> None:
        """Before anything is held: which life of its data Redis is in.

        Raises:
            Unavailable: Redis does not answer.
        """
        self._epoch = self._ledger.heartbeat((), "").epoch

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; what is still held runs out or was surrendered."""
        self._stop.set()
        self._thread.join(timeout=self._interval + 10)

    def accepted(self, request: object, member: str, runner: int, token: str = "") -> None:
        """A runner took the request. Celery must count it as running by now."""
        with self._lock:
            self._held[Holding(member, runner, token)] = weakref.ref(request)

    def forget(self, holding: Holding) -> None:
        """Its end was told; nothing more is to be said of it."""
        with self._lock:
            self._held.pop(holding, None)

    def process_died(self, request: object, message: str) -> None:
        """The pool process that ran it is gone: say so at once, instead of letting the lease run out."""
        with self._lock:
            gone = [holding for holding, reference in self._held.items() if reference() is request]
            for holding in gone:
                del self._held[holding]
        for holding in gone:
            self._surrender(holding, EventKind.LOST, Failure(reason=Reason.WORKER_LOST, message=message))

    def hand_back(self) -> int:
        """Give up everything that still runs, so that other workers may run it. Returns how many attempts that were."""
        failure = Failure(
            reason=Reason.DRAIN, message="the worker was told to stop and the handler did not end in the time it leaves"
        )
        return sum(self._surrender(holding, EventKind.RELEASED, failure) for holding in self.current())

    def current(self) -> list[Holding]:
        """What runs now."""
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
            # The lease will run out instead.
            log.warning("surrender_failed", member=holding.member, error=str(error))
            return False
        log.info("attempt_surrendered", member=holding.member, reason=failure.reason, held=held)
        return held

    def _renew_for_ever(self) -> None:
        while not self._stop.wait(self._interval):
            started = time.monotonic()
            current = self.current()
            # After lost data, one that was only delivered must not be entered: its claim will be refused, and another worker may run it.
            running = [holding for holding in current if self._begun(holding)]
            try:
                answer = self._ledger.heartbeat(running, self._epoch)
            except Unavailable as error:
                log.warning("heartbeat_failed", error=str(error))
                continue
            if len(running) == len(current):
                # Else one may have been claimed a moment ago, before the data was lost: the next heartbeat has to enter it.
                self._epoch = answer.epoch
            for member in answer.fenced:
                log.warning("attempt_fenced", member=member)
            self._hear(answer)
            if (took := time.monotonic() - started) > self._interval:
                log.warning("heartbeat_slow", seconds=round(took, 1))
