"""What is limited and what a request costs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WINDOW_SECONDS = 60
READ_COST, LIST_COST, WRITE_COST, BATCH_COST = 1, 2, 5, 100
_READS = (
    "getTask", "getArtifact", "getFile", "getLogs", "getPool", "getOperation", "getApiKey", "getWebhook", "getDelivery",
    "streamEvents", "streamTaskEvents",
)  # fmt: skip
_LISTS = (
    "listTasks", "listFiles", "listItems", "listArtifacts", "listPools", "listOperations", "listApiKeys", "listWebhooks",
    "listDeliveries", "getWhy",
)  # fmt: skip
_WRITES = (
    "createTask", "changeTask", "cancelTask", "retryTask", "deleteTask", "createUpload", "deleteFile",
    "createMultipartUpload", "signParts", "completeMultipartUpload", "abortMultipartUpload", "changePool",
    "deleteOperation", "createApiKey", "rotateApiKey", "revokeApiKey", "createWebhook", "changeWebhook",
    "rotateWebhookSecret", "testWebhook", "deleteWebhook", "replayDelivery", "registerAccount", "createToken",
)  # fmt: skip
_BATCHES = ("createTasks", "cancelTasks", "retryTasks")
COSTS: Mapping[str, int] = (
    dict.fromkeys(_READS, READ_COST)
    | dict.fromkeys(_LISTS, LIST_COST)
    | dict.fromkeys(_WRITES, WRITE_COST)
    | dict.fromkeys(_BATCHES, BATCH_COST)
)
"""By operationId, of all routes that are limited: none of them has a cost that nobody chose."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units in so many seconds for whoever the key stands for; as many at once."""

    name: str
    key: str
    quota: int
    seconds: int = WINDOW_SECONDS

    @property
    def interval(self) -> float:
        """Microseconds after which one more unit is there."""
        return self.seconds * 1_000_000 / self.quota


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
    return COSTS.get(operation, READ_COST if method in ("GET", "HEAD") else WRITE_COST)


def headers(standings: Sequence[Standing]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` by draft-ietf-httpapi-ratelimit-headers-11; `Retry-After` on a refusal."""
    found = {
        "RateLimit-Policy": ", ".join(
            f'"{each.limit.name}";q={each.limit.quota};w={each.limit.seconds}' for each in standings
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
