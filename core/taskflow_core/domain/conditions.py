"""Condition types of a Task, and how one is set."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from taskflow_core.domain.resource import Condition
from taskflow_core.domain.task import MAX_MESSAGE_CHARS

ACCEPTED = "Accepted"
"""The specification is valid."""
QUEUED = "Queued"
"""In its queue, or the reason why not."""
RUNNING = "Running"
"""A worker holds its lease."""
COMPLETE = "Complete"
"""Succeeded."""
FAILED = "Failed"
"""Failed; no further attempt follows."""
CANCELLED = "Cancelled"
"""Ended on request."""
FINISHED = "Finished"
"""Ended with any outcome; `kubectl wait --for=condition=Finished` waits for it."""


def set_condition(
    conditions: Iterable[Condition],
    kind: str,
    *,
    status: bool,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions with one set; its transition time moves only when its status does (KEP-1623)."""
    kept = tuple(conditions)
    value = "True" if status else "False"
    former = next((c for c in kept if c.type == kind), None)
    # In whole seconds, as it is written. Conditions that changed in the same second are then equal, and kept once.
    since = former.last_transition_time if former and former.status == value else now.replace(microsecond=0)
    new = Condition(
        type=kind,
        status=value,
        reason=reason,
        message=message[:MAX_MESSAGE_CHARS],
        last_transition_time=since,
        observed_generation=generation,
    )
    if former is None:
        return (*kept, new)
    return tuple(new if c.type == kind else c for c in kept)
