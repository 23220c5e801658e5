"""Whether an attempt goes back into its queue whose worker does not know the handler. Pure.

A release applies a WorkerPool and a Task of its new handler together, in any order. Until the rollout is over, a worker
of the old version may take the Task.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

GRACE = timedelta(seconds=30)
"""How long a worker that knows the handler is waited for without a rollout: the change of the pool may come a moment
after the Task and be seen seconds later, and pods that were just replaced still take messages."""
LIMIT = timedelta(minutes=10)
"""The same during a rollout: Kubernetes' default of `progressDeadlineSeconds`."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=10)


@dataclass(frozen=True)
class Rollout:
    """The rollout of a WorkerPool."""

    pool: str
    """Name of the WorkerPool."""
    going: bool
    """It is not over."""
    seen: datetime
    """When it was last seen going."""


@dataclass(frozen=True)
class PutBack:
    """The attempt goes back into its queue, and does not count."""

    since: datetime
    """Since when no worker knew the handler."""
    due: datetime
    """When the next attempt may start."""
    message: str


def put_back(
    handler: str, worker: str | None, since: datetime | None, rollout: Rollout | None, now: datetime
) -> PutBack | None:
    """What follows when a worker does not know the handler; None if the Task fails.

    Args:
        handler: its name.
        worker: that does not know it, if known.
        since: when a worker first did not know it, without an attempt since that ended otherwise.
        rollout: the latest of the pools that serve the queue, if there was one.
        now: the time.
    """
    since = since or now
    until = since + GRACE
    if rollout is not None:
        until = since + LIMIT if rollout.going else min(max(until, rollout.seen + GRACE), since + LIMIT)
    if now >= until:
        return None
    # Each pause is as long as the whole wait so far, so they double.
    due = min(now + min(max(now - since, FIRST_PAUSE), LONGEST_PAUSE), until)
    cause = (
        f"while WorkerPool {rollout.pool!r} is rolled out"
        if rollout is not None and rollout.going
        else "in case a WorkerPool of its queue is just being updated"
    )
    who = f"worker {worker}" if worker else "the worker"
    return PutBack(since, due, f"{who} has no handler {handler!r}; tries again until {until:%H:%M:%S} UTC, {cause}")
