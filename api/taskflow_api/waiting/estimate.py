"""Estimates when a Task will start, from the recent throughput of its queue. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_STARTS = 200
"""How many of the latest starts are used."""
WINDOW = timedelta(minutes=15)
MIN_STARTS = 5
"""With fewer starts there is no estimate."""


@dataclass(frozen=True)
class Estimate:
    """An estimate and its basis."""

    starts_per_minute: float | None
    start: datetime | None
    basis: str


def estimate(starts: Sequence[datetime], ahead: int | None, now: datetime) -> Estimate:
    """The time until all Tasks ahead and this one have started: (ahead + 1) / rate.

    The rate is the number of starts divided by the time since the first of them, over at most 200 starts of the queue
    within 15 minutes. The time ends now, not at the latest start, so the rate of a stalled queue falls.
    """
    recent = sorted(start for start in starts if now - WINDOW <= start <= now)
    if len(recent) < MIN_STARTS:
        basis = f"unknown: {len(recent)} Tasks of the queue started in the last 15 minutes, the minimum is {MIN_STARTS}"
        return Estimate(None, None, basis)
    seconds = max((now - recent[0]).total_seconds(), 1.0)
    rate = len(recent) / seconds
    basis = f"{len(recent)} Tasks of the queue started in the last {seconds:.0f} s"
    if ahead is None:
        return Estimate(round(rate * 60, 2), None, f"unknown: the queue position is not known; {basis}")
    start = now + timedelta(seconds=(ahead + 1) / rate)
    return Estimate(
        round(rate * 60, 2), start, f"{ahead} Tasks ahead; {basis}; bursts, retries or other pools may change this"
    )
