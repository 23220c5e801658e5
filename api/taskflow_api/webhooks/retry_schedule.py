"""The retry schedule of deliveries. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SCHEDULE = tuple(timedelta(seconds=each) for each in (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400))
"""The delay before each attempt: 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h. More than 3 days in total.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#deliverability-and-reliability
"""
JITTER = 0.1
MAX_RETRY_AFTER = timedelta(hours=24)


def delay(attempts: int, retry_after: timedelta | None, random: float) -> timedelta | None:
    """The delay after a number of attempts; None if there is no further attempt.

    Args:
        attempts: Attempts so far, 0 or more.
        retry_after: The wish of the receiver. It lengthens the delay to at most 24 h and never shortens it.
        random: From 0 to 1. Spreads the delay by 10 % in both directions, so that deliveries do not retry all at once.
    """
    if attempts >= len(SCHEDULE):
        return None
    pause = SCHEDULE[attempts] * (1 + JITTER * (2 * random - 1))
    return pause if retry_after is None else max(pause, min(retry_after, MAX_RETRY_AFTER))


def read_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """The time of a `Retry-After` header (RFC 9110, section 10.2.3); None if it is invalid or in the past."""
    if not value or len(value) > 64:  # noqa: PLR2004 - no date is longer
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=min(int(text), 10**9)), MAX_RETRY_AFTER)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    pause = (then if then.tzinfo else then.replace(tzinfo=UTC)) - now
    return min(pause, MAX_RETRY_AFTER) if pause > timedelta(0) else None
