from __future__ import annotations

from typing import Any

import kopf

from taskflow_core.domain import naming
from taskflow_operator.observe import Observer


def register(registry: kopf.OperatorRegistry, observer: Observer) -> None:
    """Watch Tasks by `on.event` alone: Kopf then writes nothing to them, and keeps no finalizer, annotation or timer."""

    @kopf.on.event(naming.GROUP, naming.VERSION, "tasks", registry=registry)
    async def observe_task(event: kopf.RawEvent, **_: Any) -> None:
        # DELETED means "left the selection of open Tasks": it finished, or it is gone.
        observer.observe(dict(event["object"]), gone=event["type"] == "DELETED")
