"""What is limited and what a request costs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WINDOW_SECONDS = 60
LIST_COST, WRITE_COST, BATCH_COST = 2, 5, 100
COSTS: Mapping[str, int] = {
    # Anything that is not here is read from one place and costs 1.
    "listTasks": LIST_COST,
    "listFiles": LIST_COST,
    "listItems": LIST_COST,
    "listArtifacts": LIST_COST,
    "listPools": LIST_COST,
    "listOperations": LIST_COST,
    "listApiKeys": LIST_COST,
    "getWhy": LIST_COST,
    "createTasks": BATCH_COST,
    "cancelTasks": BATCH_COST,
    "retryTasks": BATCH_COST,
}
"""By operationId; a write costs `WRITE_COST` if it is not named."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units a minute for whoever the key stands for; as many at once."""

    name: str
    key: str
    quota: int

    @property
    def interval(self) -> float:
        """Microseconds after which one more unit is there."""
        return WINDOW_SECONDS * 1_000_000 / self.quota


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands after a request, or because of one that it refused."""

    limit: Limit
    passes: bool
    left: int
    """Units."""
    whole_micros: int
    """Until all units are there again."""
    wait_micros: int
    """Until the request would have passed; 0 if it did."""


def cost(method: str, operation: str) -> int:
    """Units that a request takes."""
    return COSTS.get(operation, 1 if method in ("GET", "HEAD") else WRITE_COST)


def headers(standings: Sequence[Standing]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` by draft-ietf-httpapi-ratelimit-headers-11; `Retry-After` on a refusal."""
    found = {
        "RateLimit-Policy": ", ".join(
            f'"{each.limit.name}";q={each.limit.quota};w={WINDOW_SECONDS}' for each in standings
        ),
        "RateLimit": ", ".join(
            f'"{each.limit.name}";r={max(each.left, 0)};t={_seconds(each.whole_micros)}' for each in standings
        ),
    }
    if wait := max((each.wait_micros for each in standings), default=0):
        found["Retry-After"] = str(max(_seconds(wait), 1))
    return found


def _seconds(micros: int) -> int:
    return math.ceil(micros / 1_000_000)
