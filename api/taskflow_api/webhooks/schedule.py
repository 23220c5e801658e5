"""When a delivery is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SCHEDULE = tuple(
    timedelta(seconds=each) for each in (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
)  # fmt: skip
"""Before each attempt, after the one before it: 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; over 3 days in all.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#deliverability-and-reliability
"""
JITTER = 0.1
MAX_RETRY_AFTER = timedelta(hours=24)


def delay(made: int, retry_after: timedelta | None, random: float) -> timedelta | None:
    """How long to wait after `made` attempts; None when there is no other.

    Args:
        made: Attempts so far, 0 or more.
        retry_after: What the receiver asked for. It lengthens the pause, to 24 h at most, and never shortens it.
        random: From 0 to 1; spreads the pause by 10 % to both sides, so that what failed together does not come together.
    """
    if made >= len(SCHEDULE):
        return None
    pause = SCHEDULE[made] * (1 + JITTER * (2 * random - 1))
    return pause if retry_after is None else max(pause, min(retry_after, MAX_RETRY_AFTER))


def read_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """A `Retry-After` header (RFC 9110 section 10.2.3), seconds or a date; None for what is neither, or in the past."""
    if not value or len(value) > 64:  # noqa: PLR2004 - longer is no date
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
