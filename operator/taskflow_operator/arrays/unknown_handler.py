"""Puts chunks back whose workers do not know the handler, while one that knows it may come."""

from __future__ import annotations

from datetime import datetime

from taskflow_core.domain.events import Event, EventKind, Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import Task
from taskflow_operator.tasks.rules.decision import Pools
from taskflow_operator.tasks.rules.unknown_handler import PutBack, put_back


class HandlerWait:
    """Of one array: a pause in which no chunk is handed out.

    Args:
        pools: which of them are being rolled out.
    """

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self.since: datetime | None = None
        """Since when no worker knew the handler; None if the latest one did. The status keeps it."""
        self.latest: PutBack | None = None

    def take(self, task: Task, event: Event, now: datetime) -> Event:
        """The end of a chunk, as handed back if its worker does not know the handler and others may."""
        if event.kind is EventKind.SUCCEEDED:
            self.since = self.latest = None
        if event.kind is not EventKind.FAILED or event.payload.get("reason") != Reason.UNKNOWN_HANDLER:
            return event
        rollout = self._pools.rollout(task.namespace, task.spec.queue)
        answer = put_back(task.spec.handler, event.worker, self.since, rollout, now)
        if answer is None:
            return event
        self.since, self.latest = answer.since, answer
        handed_back = Failure(reason=Reason.DRAIN, message=answer.message)
        return event.model_copy(
            update={"kind": EventKind.RELEASED, "payload": handed_back.model_dump(mode="json", by_alias=True)}
        )

    def pause(self, now: datetime) -> PutBack | None:
        """Until when and why no chunk may be handed out; None if one may."""
        return self.latest if self.latest is not None and now < self.latest.due else None
