from __future__ import annotations

from typing import Any

import kopf

from taskflow_core.domain import naming
from taskflow_operator.inbox import Inbox, Seen
from taskflow_operator.observe import Observer


def register(registry: kopf.OperatorRegistry, inbox: Inbox, observer: Observer) -> None:
    """Watch Tasks by `on.event` alone: Kopf then writes nothing to them, and keeps no finalizer, annotation or timer."""

    def take(body: dict[str, Any], gone: bool) -> None:
        observer.observe(body, gone=gone)

    @kopf.on.event(naming.GROUP, naming.VERSION, "tasks", registry=registry)
    async def observe_task(event: kopf.RawEvent, **_: Any) -> None:
        # DELETED means "left the selection of open Tasks": it finished, or it is gone.
        inbox.put(Seen(take, dict(event["object"]), event["type"] == "DELETED"))
