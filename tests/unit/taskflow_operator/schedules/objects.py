"""TaskSchedules, and Tasks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.scheduled_run import ScheduledRun
from taskflow_core.domain.task import Owner, Task
from taskflow_core.domain.taskschedule import KIND, TaskSchedule
from tests.builders import NOW, make_task

SCHEDULE_UID = "5c1d"


def schedule_object(
    *,
    uid: str = SCHEDULE_UID,
    name: str = "nightly",
    namespace: str = "team-a",
    version: int = 1,
    generation: int = 1,
    created: datetime = NOW,
    status: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """As the API server shows it; further keywords are fields of the spec, as on the wire."""
    if "schedules" not in spec and "every" not in spec:
        spec["every"] = {"seconds": 60}
    return {
        "apiVersion": naming.API_VERSION,
        "kind": KIND,
        "metadata": {
            "uid": uid,
            "namespace": namespace,
            "name": name,
            "generation": generation,
            "resourceVersion": str(version),
            "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "annotations": annotations or {},
        },
        "spec": {"taskTemplate": {"spec": {"handler": "reports.build"}}, **spec},
        "status": status or {},
    }


def make_schedule(**fields: Any) -> TaskSchedule:
    """As `schedule_object`."""
    return TaskSchedule.from_object(schedule_object(**fields))


def run_of(
    name: str,
    *,
    tick: datetime | None = NOW,
    uid: str = "",
    schedule_uid: str = SCHEDULE_UID,
    phase: Phase | None = None,
    ended: datetime | None = None,
    backfill: str = "",
    run_now: str = "",
) -> Task:
    """A Task of a schedule."""
    task = make_task(
        uid=uid or name,
        name=name,
        phase=phase,
        status=None if ended is None else {"completion_time": ended, "observed_generation": 1},
    )
    owner = Owner(kind=KIND, name="nightly", uid=schedule_uid)
    run = ScheduledRun(schedule="nightly", tick=tick, backfill=backfill, run_now=run_now)
    return task.model_copy(update={"owner": owner, "scheduled": run})
