from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from taskflow_core.domain.events import EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.worker import Heartbeat, Holding, WorkerLedger
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.board import Board, Slot
from taskflow_worker.failures import STOPS
from taskflow_worker.holdings import Holdings

log = get_logger(__name__)
TICK_SECONDS = 0.2
_CANCELS = frozenset({Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.TOO_MANY_FAILURES})


class Step(Enum):
    """What to do about an attempt that has to stop."""

    ASK = "ask"
    END = "end"


@dataclass(frozen=True)
class Asked:
    """An attempt was told to stop, why, and when by the monotonic clock."""

    reason: Reason
    at: float


def kind_of(reason: Reason) -> EventKind:
    """The event that an attempt which did not succeed ends with."""
    return EventKind.CANCELLED if reason in _CANCELS else EventKind.FAILED


def next_step(
    *, timeout_at: float | None, wanted: Reason | None, asked: Asked | None, now: float, grace: float
) -> tuple[Step, Reason] | None:
    """What to do with a running attempt now.

    Args:
        timeout_at: when its own time is over.
        wanted: why somebody else wants it stopped.
        asked: what it was told.
        now: the time.
        grace: seconds between asking and ending by force.
    """
    if asked is not None:
        return (Step.END, asked.reason) if now >= asked.at + grace else None
    if wanted is not None:
        return Step.ASK, wanted
    if timeout_at is not None and now >= timeout_at:
        return Step.ASK, Reason.ATTEMPT_TIMEOUT
    return None


class Force(Protocol):
    """What can be done to a runner besides asking it: see `Pool`."""

    fate: str

    def interrupt(self, runner: int) -> None:
        """See `Pool`."""

    def end(self, holding: Holding, slot: Slot) -> None:
        """See `Pool`."""


class Enforcer:
    """Stops attempts: asks first, and uses force on one that did not stop in time. A thread of the main process.

    The end is told before force is used, so that it counts as what it is and not as a lost worker.

    Args:
        holdings: what runs.
        board: where to ask.
        ledger: may be shared with other threads.
        force: what to do then.
        grace_seconds: between asking and force.
    """

    def __init__(
        self, holdings: Holdings, board: Board, ledger: WorkerLedger, force: Force, grace_seconds: float
    ) -> None:
        self._holdings = holdings
        self._board = board
        self._ledger = ledger
        self._force = force
        self._grace = grace_seconds
        self._wanted: dict[str, Reason] = {}
        self._fenced: frozenset[str] = frozenset()
        self._asked: dict[str, Asked] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._enforce_for_ever, name="enforcer", daemon=True)

    def start(self) -> None:
        """Start enforcing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop enforcing."""
        self._stop.set()

    def hear(self, answer: Heartbeat) -> None:
        """Take in what the last heartbeat brought."""
        self._fenced = frozenset(answer.fenced)
        self._wanted = dict.fromkeys(answer.fenced, Reason.WORKER_LOST) | dict(answer.stops)

    def _enforce_for_ever(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            try:
                self.enforce(time.monotonic())
            except Exception:
                # Whatever it was, other attempts still have to be stopped.
                log.exception("enforcing_failed")

    def enforce(self, now: float) -> None:
        """Look at everything that runs, once."""
        running = self._holdings.current()
        members = {holding.member for holding in running}
        self._asked = {member: asked for member, asked in self._asked.items() if member in members}
        for holding in running:
            slot = self._board.find(holding.runner, holding.member)
            if slot is None:
                continue
            step = next_step(
                timeout_at=slot.timeout_at,
                wanted=self._wanted.get(holding.member),
                asked=self._asked.get(holding.member),
                now=now,
                grace=self._grace,
            )
            if step is None:
                continue
            if step[0] is Step.ASK:
                self._ask(holding, slot, step[1], now)
            else:
                self._end(holding, slot, step[1])

    def _ask(self, holding: Holding, slot: Slot, reason: Reason, now: float) -> None:
        log.info("attempt_stopping", member=holding.member, reason=reason, grace_seconds=self._grace)
        self._asked[holding.member] = Asked(reason, now)
        slot.ask(holding.member, reason)
        if reason is Reason.ATTEMPT_TIMEOUT:
            self._force.interrupt(holding.runner)

    def _end(self, holding: Holding, slot: Slot, reason: Reason) -> None:
        slot.doom(holding.member)
        try:
            told = holding.member in self._fenced or self._tell(holding, reason)
        except Unavailable as error:
            # Tried again at the next tick: an end that was not told would count as a lost worker.
            log.warning("stop_postponed", member=holding.member, error=str(error))
            told = False
        if not told or not slot.runs(holding.runner, holding.member):
            slot.spare()
            return
        self._holdings.forget(holding)
        self._force.end(holding, slot)

    def _tell(self, holding: Holding, reason: Reason) -> bool:
        words = f"{STOPS.get(reason, reason.value)}; the handler did not stop within {self._grace:g} s and {self._force.fate}"
        return self._ledger.surrender(holding, kind_of(reason), Failure(reason=reason, message=words))
