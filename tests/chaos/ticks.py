"""Judges the ticks of TaskSchedules from what was read of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Ticked:
    """A schedule after a run, as the API server has it."""

    name: str
    offset: int
    """Its ticks are so many seconds after those of the epoch."""
    created: datetime
    cursor: datetime | None
    """Every tick up to here is decided on."""
    missed: int
    last: datetime | None = None
    """The latest tick that became a Task. It is beyond the cursor if its user suspended the schedule at that moment."""


@dataclass(frozen=True)
class TickRun:
    """What a handler recorded: the tick that it was for, and its Task."""

    schedule: str
    tick: datetime
    uid: str


def expected(ticked: Ticked, seconds: int) -> list[datetime]:
    """Ticks at that distance after the creation and up to the cursor."""
    created, found = ticked.created, list[datetime]()
    start = int(created.timestamp()) // seconds * seconds + ticked.offset
    tick = datetime.fromtimestamp(start, created.tzinfo)
    while ticked.cursor is not None and tick <= ticked.cursor:
        if tick > created:
            found.append(tick)
        tick += timedelta(seconds=seconds)
    return found


def twice(runs: Iterable[TickRun]) -> list[tuple[str, datetime]]:
    """Ticks that more than one Task ran for. One Task may have several attempts."""
    tasks: dict[tuple[str, datetime], set[str]] = {}
    for run in runs:
        tasks.setdefault((run.schedule, run.tick), set()).add(run.uid)
    return sorted(key for key, uids in tasks.items() if len(uids) > 1)


def lost(schedules: Sequence[Ticked], runs: Iterable[TickRun], seconds: int) -> Iterator[tuple[str, int]]:
    """Schedules with ticks that neither ran nor were counted as missed, and how many."""
    ran = {(run.schedule, run.tick) for run in runs}
    for each in schedules:
        left = sum((each.name, tick) not in ran for tick in expected(each, seconds)) - each.missed
        if left > 0:
            yield each.name, left


def strangers(
    schedules: Sequence[Ticked], runs: Iterable[TickRun], seconds: int, now: datetime
) -> list[tuple[str, datetime]]:
    """Runs of ticks that there are not, or that the schedule has not decided on.

    A tick that has not come yet may have run all the same: a clock was ahead, and was set right before the cursor was
    written. When its time comes, its Task is there.
    """
    due = {(each.name, tick) for each in schedules for tick in (*expected(each, seconds), each.last)}
    offsets = {each.name: each.offset for each in schedules}
    return sorted(
        key
        for key in {(run.schedule, run.tick) for run in runs} - due
        if key[1] <= now or key[1].timestamp() % seconds != offsets[key[0]]
    )
