"""Schedules with everything filled in but what a test is about, and their life without servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.taskschedule import TaskSchedule, TaskScheduleSpec, TaskScheduleStatus
from taskflow_operator.schedules.rules.plan import plan
from taskflow_operator.schedules.rules.runs import Child, Plan, Refusal, RefusalReason

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    """A time of the form `2026-03-29 01:00`, in UTC unless it says otherwise."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def make_schedule(*lines: str, created: str = "2026-01-01", **fields: Any) -> TaskSchedule:
    """A schedule; keywords are fields of its specification."""
    timing = {} if "every" in fields else {"schedules": lines}
    spec = TaskScheduleSpec.model_validate({"taskTemplate": {"spec": {"handler": "reports.build"}}} | timing | fields)
    return TaskSchedule(uid="uid-1", namespace="team-a", name="nightly", created=at(created), spec=spec)


class Life:
    """A schedule, its Tasks and what an operator does for it, decision by decision."""

    def __init__(self, schedule: TaskSchedule) -> None:
        self.schedule = schedule
        self.tasks: dict[str, Child] = {}
        self.refused: dict[str, Refusal] = {}
        self.last = Plan(TaskScheduleStatus())
        self.created: list[str] = []
        """Names, in the order of their creation."""

    @property
    def status(self) -> TaskScheduleStatus:
        return self.schedule.status

    def edit(self, **fields: Any) -> None:
        """Change fields of the specification."""
        spec = self.schedule.spec.model_dump(by_alias=True, mode="json") | fields
        update = {"spec": TaskScheduleSpec.model_validate(spec), "generation": self.schedule.generation + 1}
        self.schedule = self.schedule.model_copy(update=update)

    def decide(self, now: datetime) -> Plan:
        self.last = plan(self.schedule, list(self.tasks.values()), now, self.refused)
        return self.last

    def create(self, now: datetime) -> None:
        """The first half of what an operator does."""
        for run in self.last.runs:
            tick = None if run.token else run.tick
            self.tasks[run.name] = Child(run.name, now, tick, Phase.RUNNING, backfill=run.backfill)
            self.created.append(run.name)
        for name in self.last.cancel:
            self.tasks[name] = replace(self.tasks[name], cancelled=True)

    def write(self) -> None:
        """The second half."""
        self.schedule = self.schedule.model_copy(update={"status": self.last.status})

    def step(self, now: str | datetime) -> list[str]:
        """Decide and do it, until nothing is left to do now. Returns the names of the Tasks that were created."""
        time = at(now) if isinstance(now, str) else now
        before = len(self.created)
        for _ in range(50):
            self.decide(time)
            self.create(time)
            self.write()
            if self.last.wake_at is None or self.last.wake_at > time:
                return self.created[before:]
        raise AssertionError("it never comes to rest")

    def follow(self, until: str) -> list[str]:
        """Go from each time at which a decision is wanted to the next."""
        before, end = len(self.created), at(until)
        while (wake := self.last.wake_at) is not None and wake <= end:
            self.step(wake)
        return self.created[before:]

    def end(self, name: str, phase: Phase = Phase.SUCCEEDED) -> None:
        self.tasks[name] = replace(self.tasks[name], phase=phase)

    def end_all(self) -> None:
        for name in self.tasks:
            self.end(name)

    def refuse(self, name: str, until: str, reason: RefusalReason = RefusalReason.CREATE_REFUSED) -> None:
        self.refused = {name: Refusal(reason, "exceeded quota: tasks", at(until))}
