from __future__ import annotations

from typing import Any

import kopf

from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_operator.pool_keeper import PoolKeeper

RETRY_SECONDS = 5


def register(registry: kopf.OperatorRegistry, keeper: PoolKeeper) -> None:
    """WorkerPools are few and change rarely, so Kopf's state machine and its annotation are worth their writes here."""

    @kopf.on.event(naming.GROUP, naming.VERSION, "workerpools", registry=registry)
    async def observe_pool(event: kopf.RawEvent, **_: Any) -> None:
        keeper.observe(dict(event["object"]), gone=event["type"] == "DELETED")

    @kopf.on.resume(naming.GROUP, naming.VERSION, "workerpools", registry=registry)
    @kopf.on.create(naming.GROUP, naming.VERSION, "workerpools", registry=registry)
    @kopf.on.update(naming.GROUP, naming.VERSION, "workerpools", registry=registry)
    async def apply_pool(body: kopf.Body, **_: Any) -> None:
        try:
            await keeper.apply(body)
        except Unavailable as error:
            raise kopf.TemporaryError(str(error), delay=RETRY_SECONDS) from error

    @kopf.on.event("apps", "v1", "deployments", labels={naming.LABEL_POOL: kopf.PRESENT}, registry=registry)
    async def observe_deployment(event: kopf.RawEvent, **_: Any) -> None:
        await keeper.deployment_seen(dict(event["object"]), gone=event["type"] == "DELETED")
