"""Takes in Tasks that finished: for who keeps or deletes them, and for whoever waits until a late change was seen."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from taskflow_core.domain.phases import FINISHED_SELECTOR
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Invalid, NotFound, TaskflowError
from taskflow_core.kube.client import JSON_PATCH, KubeClient, tasks_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.log_fields import log_fields

log = get_logger(__name__)
RETRY_SECONDS = 1.0


class FinishedTasks(Protocol):
    """Who has to know the finished Tasks that there are. Ends that this operator writes, `Finished` tells."""

    def finished(self, task: Task) -> None:
        """There is this finished Task; may be told again."""

    def forget(self, uid: str) -> None:
        """The Task no longer exists."""

    def known(self) -> Collection[str]:
        """Uids of the finished Tasks that were told and not forgotten."""


class FinishedObserver:
    """Watches finished Tasks.

    The specification of a Task may change a moment before its end is written, unseen, or at any time after it.
    Such a change has no effect, but for the time to live. But `kubectl wait` waits until `observedGeneration` is that
    of the specification, so it is written. While nothing changes after the end, this costs no request.

    Args:
        kube: the API server.
        told: are told of each finished Task, and of those that are gone.
    """

    def __init__(self, kube: KubeClient, *told: FinishedTasks) -> None:
        self._kube = kube
        self.told = list(told)
        self.listed = False
        """Whether all finished Tasks that there were at the start have been told."""
        self._behind: dict[str, Task] = {}
        """By uid, Tasks whose latest generation is not observed, as last seen."""
        self._changed = asyncio.Event()

    def observe(self, body: dict[str, Any], *, gone: bool = False) -> None:
        """Take in a finished Task as the API server shows it; `gone` means that it was deleted."""
        meta = body["metadata"]
        if gone:
            self._behind.pop(meta["uid"], None)
            self._forget(meta["uid"])
        elif _is_behind(body):
            # Nearly all others have just been finished by this operator, which told of it.
            self._take(body)

    async def list(self) -> str:
        """Take in all finished Tasks, and forget those that were deleted.

        Returns the resourceVersion of the list.

        Raises:
            Unavailable, Conflict: the list could not be read to its end.
        """
        gone, version = {uid for each in self.told for uid in each.known()}, ""
        async for page in self._kube.list_pages(tasks_path(), FINISHED_SELECTOR):
            version = page.version
            for body in page.items:
                gone.discard(body["metadata"]["uid"])
                self._take(body)
        for uid in gone:
            self._forget(uid)
        self.listed = True
        return version

    def _forget(self, uid: str) -> None:
        for each in self.told:
            each.forget(uid)

    def _take(self, body: Mapping[str, Any]) -> None:
        try:
            task = Task.from_object(dict(body))
        except ValidationError as error:
            log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
            return
        for each in self.told:
            each.finished(task)
        if _is_behind(body):
            self._behind[task.uid] = task
            self._changed.set()

    async def run(self) -> None:
        """Write the generations that were seen, one after the other, until cancelled."""
        while True:
            if not self._behind:
                self._changed.clear()
                await self._changed.wait()
            uid = next(iter(self._behind))
            task = self._behind.pop(uid)
            try:
                await self._write(task)
            except TaskflowError as error:
                dependency_health.failed(error)
                # What was seen meanwhile is newer.
                self._behind.setdefault(uid, task)
                await asyncio.sleep(RETRY_SECONDS)

    async def _write(self, task: Task) -> None:
        places = ["", *(f"/conditions/{number}" for number in range(len(task.status.conditions)))]
        paths = [f"/status{place}/observedGeneration" for place in places]
        patch: list[dict[str, object]] = [
            {"op": "test", "path": "/metadata/uid", "value": task.uid},
            *({"op": "add", "path": path, "value": task.generation} for path in paths),
        ]
        try:
            await self._kube.request(
                "PATCH", tasks_path(task.namespace, task.name) + "/status", patch, content_type=JSON_PATCH
            )
        except (NotFound, Conflict, Invalid) as error:
            log.info("observed_generation_not_written", uid=task.uid, error=str(error))
        else:
            log.info("change_after_end_observed", **log_fields(task), generation=task.generation)


def _is_behind(body: Mapping[str, Any]) -> bool:
    """Whether the specification is newer than what the status refers to."""
    observed = (body.get("status") or {}).get("observedGeneration") or 0
    return int(body["metadata"].get("generation", 1)) > int(observed)
