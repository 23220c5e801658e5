"""What each route costs, in units of the rate limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping

READ_COST, LIST_COST, WRITE_COST, BATCH_COST = 1, 2, 5, 100
_READS = (
    "getTask",
    "getArtifact",
    "getFile",
    "getLogs",
    "getPool",
    "getSchedule",
    "getOperation",
    "getApiKey",
    "getWebhook",
    "getDelivery",
    "streamEvents",
    "streamTaskEvents",
)
_LISTS = (
    "listTasks",
    "listFiles",
    "listItems",
    "listArtifacts",
    "listPools",
    "listSchedules",
    "listScheduleRuns",
    "getNextTicks",
    "previewSchedule",
    "listHandlers",
    "listOperations",
    "listApiKeys",
    "listWebhooks",
    "listDeliveries",
    "getWhy",
)
_WRITES = (
    "createTask",
    "changeTask",
    "cancelTask",
    "retryTask",
    "deleteTask",
    "forgetRuns",
    "createUpload",
    "deleteFile",
    "createMultipartUpload",
    "signParts",
    "completeMultipartUpload",
    "abortMultipartUpload",
    "changePool",
    "createSchedule",
    "changeSchedule",
    "suspendSchedule",
    "resumeSchedule",
    "backfillSchedule",
    "runSchedule",
    "deleteSchedule",
    "deleteOperation",
    "createApiKey",
    "rotateApiKey",
    "revokeApiKey",
    "createWebhook",
    "changeWebhook",
    "rotateWebhookSecret",
    "testWebhook",
    "deleteWebhook",
    "replayDelivery",
    "registerAccount",
    "createToken",
)
_BATCHES = ("createTasks", "cancelTasks", "retryTasks")
COSTS: Mapping[str, int] = (
    dict.fromkeys(_READS, READ_COST)
    | dict.fromkeys(_LISTS, LIST_COST)
    | dict.fromkeys(_WRITES, WRITE_COST)
    | dict.fromkeys(_BATCHES, BATCH_COST)
)
"""Units by operationId. A test checks that every limited route is listed."""


def cost(method: str, operation: str) -> int:
    """The units that a request costs."""
    return COSTS.get(operation, READ_COST if method in ("GET", "HEAD") else WRITE_COST)
