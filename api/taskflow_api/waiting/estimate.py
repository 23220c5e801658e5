"""When a Task will start, from how fast its queue went lately. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

LOOKED_AT = 200
"""Starts that are looked at, the latest."""
WINDOW = timedelta(minutes=15)
FEWEST = 5
"""Starts below which nothing is said."""


@dataclass(frozen=True)
class Estimate:
    """A guess and what it is made of."""

    starts_per_minute: float | None
    start: datetime | None
    basis: str


def estimate(starts: Sequence[datetime], ahead: int | None, now: datetime) -> Estimate:
    """The time until as many Tasks have started as are ahead, and this one: (ahead + 1) / rate.

    rate = starts / time since the first of them, of the latest 200 of the queue within 15 minutes. The time is counted to
    now and not to the latest start, so that a queue that stands still has a falling rate.
    """
    recent = sorted(start for start in starts if now - WINDOW <= start <= now)
    if len(recent) < FEWEST:
        basis = (
            f"not known: {len(recent)} Tasks of the queue started in the last 15 minutes, expected {FEWEST} at least"
        )
        return Estimate(None, None, basis)
    seconds = max((now - recent[0]).total_seconds(), 1.0)
    rate = len(recent) / seconds
    basis = f"{len(recent)} Tasks of the queue started in the last {seconds:.0f} s"
    if ahead is None:
        return Estimate(round(rate * 60, 2), None, f"not known: no place in the queue is; {basis}")
    start = now + timedelta(seconds=(ahead + 1) / rate)
    return Estimate(
        round(rate * 60, 2), start, f"{ahead} Tasks ahead; {basis}; a burst, a retry or another pool changes that"
    )
