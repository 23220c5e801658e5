"""Kopf handlers of WorkerPools and their Deployments. Each calls one method of the controller."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any

import kopf

from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.runtime import dependency_health

RETRY_SECONDS = 5


def register(
    registry: kopf.OperatorRegistry,
    controller: PoolController,
    home: asyncio.AbstractEventLoop,
    cares_for: Callable[[str], bool],
) -> None:
    """WorkerPools are few and change rarely, so Kopf's state machine and its annotation are worth their writes here.

    Kopf's thread waits for the controller, which works on the event loop `home`. Of namespaces that this operator does
    not care for, Kopf handles nothing and writes nothing.
    """
    ours = _in_shard(cares_for)

    async def at_home(work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))

    async def observe(body: dict[str, Any], *, gone: bool) -> None:
        controller.observe(body, gone=gone)

    @kopf.on.event(naming.GROUP, naming.VERSION, "workerpools", registry=registry, when=ours)
    async def observe_pool(event: kopf.RawEvent, **_: Any) -> None:
        await at_home(observe(dict(event["object"]), gone=event["type"] == "DELETED"))

    @kopf.on.resume(naming.GROUP, naming.VERSION, "workerpools", registry=registry, when=ours)
    @kopf.on.create(naming.GROUP, naming.VERSION, "workerpools", registry=registry, when=ours)
    @kopf.on.update(naming.GROUP, naming.VERSION, "workerpools", registry=registry, when=ours)
    async def apply_pool(body: kopf.Body, **_: Any) -> None:
        try:
            # A copy: Kopf's own view must not be read from another thread.
            await at_home(controller.apply(copy.deepcopy(dict(body))))
        except Unavailable as error:
            raise kopf.TemporaryError(str(error), delay=RETRY_SECONDS) from error

    @kopf.on.event("apps", "v1", "deployments", labels={naming.LABEL_POOL: kopf.PRESENT}, registry=registry, when=ours)
    async def observe_deployment(event: kopf.RawEvent, **_: Any) -> None:
        while True:
            try:
                await at_home(controller.deployment_seen(dict(event["object"]), gone=event["type"] == "DELETED"))
            except Unavailable as error:
                # Kopf does not repeat such a handler. Later events of the same Deployment wait for this one.
                home.call_soon_threadsafe(dependency_health.failed, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return


def _in_shard(cares_for: Callable[[str], bool]) -> Callable[..., bool]:
    def ours(namespace: str | None, **_: Any) -> bool:
        return cares_for(namespace or "")

    return ours
