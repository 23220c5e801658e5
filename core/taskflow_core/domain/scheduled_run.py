"""What a Task says of the TaskSchedule that it is a run of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskflow_core.domain.naming import (
    ANNOTATION_BACKFILL,
    ANNOTATION_RUN_NOW,
    ANNOTATION_SCHEDULED_TIME,
    LABEL_SCHEDULE,
)
from taskflow_core.domain.resource import Model, Time, readable_fields


class ScheduledRun(Model):
    """A run, by its label and annotations."""

    schedule: str
    """Name of the TaskSchedule."""
    tick: Time | None = None
    """None for a run that was asked for outside of the timing."""
    backfill: str = ""
    run_now: str = ""
    """The token that asked for it."""


def scheduled_run(meta: Mapping[str, Any]) -> ScheduledRun | None:
    """What the metadata of a Task say of it; None if it is no run of a TaskSchedule."""
    schedule = (meta.get("labels") or {}).get(LABEL_SCHEDULE)
    if not schedule:
        return None
    annotations = meta.get("annotations") or {}
    fields = {
        "tick": annotations.get(ANNOTATION_SCHEDULED_TIME),
        "backfill": annotations.get(ANNOTATION_BACKFILL, ""),
        "run_now": annotations.get(ANNOTATION_RUN_NOW, ""),
    }
    if fields["run_now"]:
        # Its time is when it was asked for, which is no tick.
        fields["tick"] = None
    return readable_fields(ScheduledRun, {"schedule": schedule, **fields}, {"schedule": schedule})[0]
