"""Bounds a rate."""

from __future__ import annotations


class TokenBucket:
    """Tokens that come back with the time.

    Args:
        per_second: how many come back.
        burst: the most that there are, and how many there are at first.
        now: monotonic seconds.
    """

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second, self._burst = per_second, burst
        self.tokens, self._refilled = burst, now

    def refill(self, now: float) -> None:
        """Add what has come back."""
        self.tokens = min(self._burst, self.tokens + (now - self._refilled) * self._per_second)
        self._refilled = now
