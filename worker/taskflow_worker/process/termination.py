"""Stops attempts that are cancelled, timed out or fenced: first by request, after a grace period by force. Frees
runners that go on after their attempt.
"""

from __future__ import annotations

import threading
import time

from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Heartbeat, Holding, WorkerLedger
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.process.leases import Leases
from taskflow_worker.process.pool import RunnerControl
from taskflow_worker.process.shared_slots import SharedSlots, Slot
from taskflow_worker.process.stop_rules import Step, StopRequest, event_kind, next_step
from taskflow_worker.sdk.failures import STOP_MESSAGES

log = get_logger(__name__)
TICK_SECONDS = 0.2
HELD_UP_SECONDS = 60.0
"""After the end of its attempt, a runner only sends a result. But receivers of Celery's signals run there too."""


class Terminator:
    """Checks all running attempts from a thread of the main process and stops those that must stop.

    It reports the end of an attempt before it terminates the runner, so that the end does not count as a lost worker.

    Args:
        leases: the running attempts.
        slots: the slots that carry the stop requests.
        ledger: may be shared with other threads.
        control: terminates runners.
        grace_seconds: time between the request and termination.
    """

    def __init__(
        self, leases: Leases, slots: SharedSlots, ledger: WorkerLedger, control: RunnerControl, grace_seconds: float
    ) -> None:
        self._leases = leases
        self._slots = slots
        self._ledger = ledger
        self._control = control
        self._grace = grace_seconds
        self._wanted: dict[str, Reason] = {}
        self._fenced: frozenset[str] = frozenset()
        self._sent: dict[str, StopRequest] = {}
        self._ended: dict[str, float] = {}
        """Attempts that ended in runners which have not returned: since when that is known."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._check_loop, name="termination", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()

    def on_heartbeat(self, answer: Heartbeat) -> None:
        """Take over the stop requests of a heartbeat's answer."""
        self._fenced = frozenset(answer.fenced)
        self._wanted = dict.fromkeys(answer.fenced, Reason.WORKER_LOST) | dict(answer.stops)

    def _check_loop(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            try:
                self.check(time.monotonic())
            except Exception:
                # The other attempts must still be stopped.
                log.exception("termination_failed")

    def check(self, now: float) -> None:
        """Check every running attempt once."""
        running = self._leases.current()
        members = {holding.member for holding in running}
        self._sent = {member: sent for member, sent in self._sent.items() if member in members}
        self._ended = {member: since for member, since in self._ended.items() if member in members}
        for holding in running:
            slot = self._slots.find(holding.runner, holding.member)
            if slot is None:
                self._check_return(holding, now)
                continue
            step = next_step(
                timeout_at=slot.timeout_at,
                wanted=self._wanted.get(holding.member),
                sent=self._sent.get(holding.member),
                now=now,
                grace=self._grace,
            )
            if step is None:
                continue
            if step[0] is Step.REQUEST:
                self._request(holding, slot, step[1], now)
            else:
                self._terminate(holding, slot, step[1])

    def _check_return(self, holding: Holding, now: float) -> None:
        if not self._slots.ended(holding.runner, holding.member):
            return
        since = self._ended.setdefault(holding.member, now)
        if now - since >= HELD_UP_SECONDS:
            log.error("runner_held_up", member=holding.member, runner=holding.runner, seconds=HELD_UP_SECONDS)
            self._leases.drop(holding)
            self._control.held_up(holding.runner)

    def _request(self, holding: Holding, slot: Slot, reason: Reason, now: float) -> None:
        log.info("attempt_stopping", member=holding.member, reason=reason, grace_seconds=self._grace)
        self._sent[holding.member] = StopRequest(reason, now)
        slot.request_stop(holding.member, reason)
        if reason is Reason.ATTEMPT_TIMEOUT:
            self._control.interrupt(holding.runner)

    def _terminate(self, holding: Holding, slot: Slot, reason: Reason) -> None:
        slot.mark_terminating(holding.member)
        try:
            reported = holding.member in self._fenced or self._report(holding, reason)
        except Unavailable as error:
            # The next check tries again: an end that is not reported would count as a lost worker.
            log.warning("stop_postponed", member=holding.member, error=str(error))
            reported = False
        if not reported or not slot.runs(holding.runner, holding.member):
            slot.clear_terminating()
            return
        self._leases.drop(holding)
        self._control.terminate(holding, slot)

    def _report(self, holding: Holding, reason: Reason) -> bool:
        message = (
            f"{STOP_MESSAGES.get(reason, reason.value)}; the handler did not stop within {self._grace:g} s and "
            f"{self._control.forced_end}"
        )
        return self._ledger.surrender(holding, event_kind(reason), Failure(reason=reason, message=message))
