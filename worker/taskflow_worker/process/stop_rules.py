"""Pure rules for attempts that must stop: what to do now, and which event their end is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from taskflow_core.domain.events import Continuation, EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.worker import Outcome

_CANCELLATIONS = frozenset({Reason.CANCELLED, Reason.DEADLINE_EXCEEDED, Reason.TOO_MANY_FAILURES})


class Step(Enum):
    """The next step for an attempt that must stop."""

    REQUEST = "request"
    TERMINATE = "terminate"


@dataclass(frozen=True)
class StopRequest:
    """A stop request that the attempt has received: why, and when by the monotonic clock."""

    reason: Reason
    at: float


def kind_of(outcome: Outcome) -> EventKind:
    """The event for the end of an attempt."""
    if isinstance(outcome, Failure):
        return event_kind(outcome.reason)
    return EventKind.AGAIN if isinstance(outcome, Continuation) else EventKind.SUCCEEDED


def event_kind(reason: Reason) -> EventKind:
    """The event for the end of an attempt that failed for this reason."""
    return EventKind.CANCELLED if reason in _CANCELLATIONS else EventKind.FAILED


def next_step(
    *, timeout_at: float | None, wanted: Reason | None, sent: StopRequest | None, now: float, grace: float
) -> tuple[Step, Reason] | None:
    """The next step for a running attempt, or None.

    Args:
        timeout_at: when the attempt times out.
        wanted: why the operator or the ledger wants it to stop.
        sent: the stop request that the attempt already received.
        now: the time.
        grace: seconds between the request and termination.
    """
    if sent is not None:
        return (Step.TERMINATE, sent.reason) if now >= sent.at + grace else None
    if wanted is not None:
        return Step.REQUEST, wanted
    if timeout_at is not None and now >= timeout_at:
        return Step.REQUEST, Reason.ATTEMPT_TIMEOUT
    return None
