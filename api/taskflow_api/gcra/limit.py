"""A rate limit, its state after a request, and the HTTP headers that report it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Limit:
    """`quota` units per `seconds` for the owner of the key. All of them may be used at once."""

    name: str
    key: str
    quota: int
    seconds: int = WINDOW_SECONDS

    @property
    def interval(self) -> float:
        """Microseconds until one more unit is available."""
        return self.seconds * 1_000_000 / self.quota


@dataclass(frozen=True, slots=True)
class LimitState:
    """The state of a limit after it allowed or refused a request."""

    limit: Limit
    passes: bool
    remaining: int
    """Units."""
    reset_micros: int
    """Time until the whole quota is available again."""
    wait_micros: int
    """Time until the request would have passed; 0 if it did."""


def headers(states: Sequence[LimitState]) -> dict[str, str]:
    """`RateLimit-Policy`, `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11), and `Retry-After` after a refusal."""
    found = {
        "RateLimit-Policy": ", ".join(
            f'"{each.limit.name}";q={each.limit.quota};w={each.limit.seconds}' for each in states
        ),
        "RateLimit": ", ".join(
            f'"{each.limit.name}";r={max(each.remaining, 0)};t={_seconds(each.reset_micros)}' for each in states
        ),
    }
    if wait := max((each.wait_micros for each in states), default=0):
        found["Retry-After"] = str(max(_seconds(wait), 1))
    return found


def _seconds(micros: int) -> int:
    return math.ceil(micros / 1_000_000)
