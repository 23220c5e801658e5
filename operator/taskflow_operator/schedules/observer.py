"""Takes in TaskSchedule resources, from the watch and from lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from taskflow_core.domain import naming
from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_core.kube.client import KubeClient, resource_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.schedules.known import KnownSchedule, KnownSchedules

log = get_logger(__name__)
SCHEDULES = f"apis/{naming.API_VERSION}"


class ScheduleObserver:
    """Keeps `KnownSchedules` equal to the resources. Calls are cheap, may be repeated, and may come in any order.

    Args:
        known: the schedules.
        kube: the API server.
        changed: has a schedule looked at, by its uid.
        gone: is told of a schedule that was deleted.
    """

    def __init__(
        self,
        known: KnownSchedules,
        kube: KubeClient,
        *,
        changed: Callable[[str], None],
        gone: Callable[[KnownSchedule], None],
    ) -> None:
        self._known = known
        self._kube = kube
        self._changed = changed
        self._gone = gone

    def observe(self, body: dict[str, Any], *, gone: bool = False) -> None:
        """Take in a schedule as the API server shows it; `gone` means that it was deleted."""
        meta = body["metadata"]
        if gone:
            self._forget(meta["uid"])
            return
        known = self._known.get(meta["uid"])
        # The answer to a write is newer than what the watch shows at that moment.
        if known is not None and int(meta["resourceVersion"]) <= int(known.schedule.resource_version):
            return
        try:
            schedule = TaskSchedule.from_object(body)
        except ValidationError as error:
            log.error("schedule_unreadable", name=meta["name"], error=str(error))  # noqa: TRY400
            return
        if known is None:
            self._known.add(schedule)
            self._changed(schedule.uid)
            return
        former = known.schedule
        known.schedule = schedule
        if _wanted(former) != _wanted(schedule) or former.status != schedule.status:
            self._changed(schedule.uid)

    async def list(self) -> str:
        """Take in all schedules, and forget those that were deleted.

        Returns the resourceVersion of the list.

        Raises:
            Unavailable, Conflict: the list could not be read to its end.
        """
        before, version = self._known.uids(), ""
        async for page in self._kube.list_pages(resource_path(SCHEDULES, TaskSchedule.PLURAL)):
            version = page.version
            for body in page.items:
                before.discard(body["metadata"]["uid"])
                self.observe(body)
        for uid in before:
            self._forget(uid)
        return version

    def _forget(self, uid: str) -> None:
        known = self._known.remove(uid)
        if known is not None:
            self._gone(known)


def _wanted(schedule: TaskSchedule) -> tuple[int, str, bool]:
    """What tells two states of a resource apart, as far as its user has a say."""
    return schedule.generation, schedule.run_now, schedule.deleting
