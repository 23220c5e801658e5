"""The Tasks of schedules: which there are, which of the finished ones go, and which have to stay."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.domain.taskschedule import KIND, TaskScheduleSpec
from taskflow_operator.schedules.known import Existing, KnownSchedule, KnownSchedules
from taskflow_operator.schedules.rules.runs import Child
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.retention import Expiry


@dataclass(slots=True)
class _Finished:
    """Finished Tasks of one schedule."""

    existing: dict[str, Existing] = field(default_factory=dict)
    """By uid, all of them."""
    succeeded: list[Expiry] = field(default_factory=list)
    """Those that count, oldest end first; without those that are being deleted."""
    others: list[Expiry] = field(default_factory=list)


class Children:
    """Reads the Tasks of each schedule from what the operator knows of Tasks.

    Finished ones beyond the history limits of their schedule are deleted, the oldest first, as soon as the history has
    their end.

    Args:
        tasks: the open Tasks.
        known: the schedules.
        expire: deletes a finished Task.
        changed: has a schedule looked at, by its uid.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        known: KnownSchedules,
        *,
        expire: Callable[[Expiry], None],
        changed: Callable[[str], None],
    ) -> None:
        self._tasks = tasks
        self._known = known
        self._expire = expire
        self._changed = changed
        self._finished: defaultdict[str, _Finished] = defaultdict(_Finished)
        """By the uid of the schedule."""
        self._places: dict[str, tuple[str, Expiry]] = {}
        """By uid of a finished Task, its schedule and how it is kept."""

    def of(self, known: KnownSchedule) -> dict[str, Existing]:
        """All Tasks of a schedule, by name."""
        schedule_uid = known.schedule.uid
        found: dict[str, Existing] = dict(known.made)
        if schedule_uid in self._finished:
            found |= {each.child.name: each for each in self._finished[schedule_uid].existing.values()}
        for each in self._tasks.children(schedule_uid):
            child, uid = Child.of(each.task), each.task.uid
            known.made.pop(child.name, None)
            # It has ended once its resource says so, which is being written.
            phase = child.phase if child.open else Phase.RUNNING
            cancelled = child.cancelled or uid in known.cancelled
            found[child.name] = Existing(replace(child, phase=phase, cancelled=cancelled), uid)
        return found

    def added(self, task: Task) -> None:
        """There is an open Task; those of no schedule are ignored."""
        known = self._known_of(task)
        if known is not None and known.made.pop(task.name, None) is None:
            # Not by this process.
            self._changed(known.schedule.uid)

    def ended(self, task: Task) -> None:
        """A Task finished, or its resource is gone."""
        known = self._known_of(task)
        if known is not None:
            known.made.pop(task.name, None)
            known.cancelled.discard(task.uid)
            self._changed(known.schedule.uid)
        self.finished(task)

    def finished(self, task: Task) -> None:
        """There is this finished Task; those of no schedule are ignored."""
        end, owner = task.status.completion_time, task.owner
        if owner is None or owner.kind != KIND or not task.finished or end is None:
            return
        mine = self._finished[owner.uid]
        mine.existing[task.uid] = Existing(Child.of(task), task.uid)
        if task.uid in self._places:
            return
        entry = Expiry(end, task.namespace, task.name, task.uid)
        self._places[task.uid] = owner.uid, entry
        insort(mine.succeeded if task.status.phase is Phase.SUCCEEDED else mine.others, entry)
        self.trim(owner.uid)
        self._changed(owner.uid)

    def _known_of(self, task: Task) -> KnownSchedule | None:
        owner = task.owner
        return None if owner is None or owner.kind != KIND else self._known.get(owner.uid)

    def trim(self, schedule_uid: str) -> None:
        """Have the finished Tasks deleted that are beyond the limits of their schedule. Those of a schedule that is
        gone stay: the API server deletes them, or its user wants to keep them.
        """
        known, mine = self._known.get(schedule_uid), self._finished.get(schedule_uid)
        if known is None or mine is None:
            return
        for entries, limit in _limits(mine, known.schedule.spec):
            while len(entries) > limit:
                self._expire(entries.pop(0))

    def forget(self, uid: str) -> None:
        """The Task no longer exists."""
        owner, entry = self._places.pop(uid, ("", None))
        mine = self._finished.get(owner)
        if mine is None or entry is None:
            return
        mine.existing.pop(uid, None)
        for entries in (mine.succeeded, mine.others):
            place = bisect_left(entries, entry)
            if entries[place : place + 1] == [entry]:
                del entries[place]
        if not mine.existing:
            del self._finished[owner]

    def known(self) -> Collection[str]:
        """Uids of the finished Tasks that were told and not forgotten."""
        return self._places.keys()


def _limits(mine: _Finished, spec: TaskScheduleSpec) -> tuple[tuple[list[Expiry], int], ...]:
    return (mine.succeeded, spec.successful_history_limit), (mine.others, spec.failed_history_limit)
