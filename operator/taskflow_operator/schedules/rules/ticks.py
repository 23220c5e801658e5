"""Which ticks are due, and what the policies of a schedule make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from taskflow_core.domain.calendar import Calendar
from taskflow_core.domain.manifests import run_name
from taskflow_core.domain.taskschedule import CatchUpPolicy, ConcurrencyPolicy, TaskSchedule
from taskflow_operator.schedules.rules.runs import Skipped, Unrun, UnrunReason

MAX_DUE = 1000
"""Ticks that are looked at; what is older was missed, and is not counted."""
AT_ONCE = 100
"""Runs that one decision creates; those of a larger backlog follow at once."""
LATE = timedelta(seconds=60)
"""A tick that is older was not seen when it was due: what to do is for `catchUp` to say."""
SECOND = timedelta(seconds=1)


@dataclass
class Draft:
    """A decision in the making.

    Args:
        schedule: what is decided about.
        calendar: its ticks.
        now: the time.
        cursor: every tick up to here is decided on.
        was_busy: a run has not ended that was created by an earlier decision. One that was interrupted counts as this
            one, which comes to the same.
        busy: a run has not ended.
        known: names of its Tasks.
        held: names that cannot be created at the moment.
    """

    schedule: TaskSchedule
    calendar: Calendar
    now: datetime
    cursor: datetime
    was_busy: bool
    busy: bool
    known: frozenset[str]
    held: frozenset[str]
    waiting: datetime | None = None
    until: datetime | None = None
    """The newest tick of the backlog that is caught up."""
    unreleased: datetime | None = None
    """The newest tick, if its jitter is not over."""
    stopped: set[str] = field(default_factory=set)
    """Names of `held` that are due."""
    declined: bool = False
    """The policy does not allow the run that a token asks for."""
    runs: list[datetime] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    wakes: list[datetime] = field(default_factory=list)
    """When something else is to be decided, besides the next tick."""

    def name(self, tick: datetime) -> str:
        """Name of the Task of this tick."""
        return run_name(self.schedule.name, tick)

    def ran(self, tick: datetime) -> bool:
        """Whether the tick became a Task already."""
        return self.name(tick) in self.known

    def expired(self, tick: datetime) -> bool:
        """Whether it is too late to start the run of this tick."""
        deadline = self.schedule.spec.starting_deadline
        return deadline is not None and self.now > tick + deadline

    def skip(self, tick: datetime, outcome: Unrun, reason: UnrunReason) -> None:
        """The tick does not become a Task."""
        self.skipped.append(Skipped(tick, outcome, reason))

    def run(self, tick: datetime) -> bool:
        """Create the run of this tick; False if that is not possible at the moment."""
        if (name := self.name(tick)) in self.held:
            self.stopped.add(name)
            self.wake_at_deadline(tick)
            return False
        self.runs.append(tick)
        self.busy = True
        return True

    def wake_at_deadline(self, tick: datetime) -> None:
        """Decide again when it is too late for this tick."""
        if (deadline := self.schedule.spec.starting_deadline) is not None:
            self.wakes.append(tick + deadline + SECOND)

    def replace_waiting(self, tick: datetime | None) -> None:
        """This tick waits, and not the one that did."""
        if self.waiting is not None and not self.ran(self.waiting):
            self.skip(self.waiting, Unrun.SKIPPED, UnrunReason.REPLACED)
        self.waiting = tick

    def blocked(self) -> bool:
        """Whether a run has to wait for the end of another one."""
        return self.busy and self.schedule.spec.concurrency_policy is not ConcurrencyPolicy.ALLOW


def release(schedule: TaskSchedule, calendar: Calendar, tick: datetime) -> datetime:
    """When the run of a tick is created: a share of `jitterSeconds` later, not after the next tick."""
    jitter = schedule.spec.jitter_seconds
    if not jitter:
        return tick
    following = next(calendar.after(tick), None)
    if following is not None:
        jitter = min(jitter, int((following - tick).total_seconds()))
    digest = hashlib.sha256(f"{schedule.uid}/{tick.isoformat()}".encode()).digest()
    return tick + timedelta(seconds=int.from_bytes(digest[:8]) % (jitter + 1))


def decide_ticks(draft: Draft) -> None:
    """Decide on the tick that waits, and on those that are due."""
    if draft.schedule.spec.concurrency_policy is ConcurrencyPolicy.REPLACE:
        # A newer tick takes the place of the one that waits, which would only be created to be cancelled.
        _decide_due(draft)
        _decide_waiting(draft)
    else:
        _decide_waiting(draft)
        _decide_due(draft)


def _decide_due(draft: Draft) -> None:
    newest = next(draft.calendar.until(draft.now), None) if draft.schedule.spec.jitter_seconds else None
    if newest is not None and newest > draft.cursor and release(draft.schedule, draft.calendar, newest) > draft.now:
        draft.unreleased = newest
    catching_up = draft.schedule.spec.catch_up.policy is CatchUpPolicy.ALL
    if catching_up and draft.until is not None and draft.until > draft.cursor:
        due = draft.calendar.due(draft.cursor, draft.until, MAX_DUE)
        _work_off(draft, due, _startable(draft, due))
        return
    draft.until = None
    due = _released(draft)
    if not due:
        return
    chosen = _caught_up(draft, due)
    pending = _startable(draft, chosen)
    backlog = _backlog(draft, chosen, pending)
    if backlog is not None:
        draft.until = backlog
        _work_off(draft, [tick for tick in due if tick <= backlog], [tick for tick in pending if tick <= backlog])
    else:
        _by_policy(draft, due, pending)


def _released(draft: Draft) -> list[datetime]:
    """The ticks after the cursor whose jitter is over; that of the newest one alone may not be."""
    until = draft.now if draft.unreleased is None else draft.unreleased - SECOND
    return draft.calendar.due(draft.cursor, until, MAX_DUE)


def _decide_waiting(draft: Draft) -> None:
    tick = draft.waiting
    if tick is None:
        return
    if draft.ran(tick):
        draft.waiting = None
    elif draft.expired(tick):
        draft.skip(tick, Unrun.MISSED, UnrunReason.DEADLINE_EXCEEDED)
        draft.waiting = None
    elif draft.blocked():
        draft.wake_at_deadline(tick)
    elif draft.run(tick):
        draft.waiting = None


def _caught_up(draft: Draft, due: Sequence[datetime]) -> Sequence[datetime]:
    """The ticks that `catchUp` includes; the others are missed."""
    spec = draft.schedule.spec
    count = 1
    if spec.catch_up.policy is CatchUpPolicy.ALL and spec.concurrency_policy is not ConcurrencyPolicy.REPLACE:
        count = spec.catch_up.limit
    elif spec.catch_up.policy is CatchUpPolicy.NONE and draft.now - due[-1] > LATE + timedelta(
        seconds=spec.jitter_seconds
    ):
        count = 0
    split = max(len(due) - count, 0)
    for tick in due[:split]:
        if not draft.ran(tick):
            late = spec.starting_deadline is not None and draft.expired(tick)
            draft.skip(tick, Unrun.MISSED, UnrunReason.DEADLINE_EXCEEDED if late else UnrunReason.CATCH_UP)
    return due[split:]


def _startable(draft: Draft, ticks: Iterable[datetime]) -> list[datetime]:
    """Those that did not run already and are not too late; the latter are missed."""
    found: list[datetime] = []
    for tick in ticks:
        if draft.ran(tick):
            continue
        if draft.expired(tick):
            draft.skip(tick, Unrun.MISSED, UnrunReason.DEADLINE_EXCEEDED)
        else:
            found.append(tick)
    return found


def _backlog(draft: Draft, chosen: Sequence[datetime], pending: Sequence[datetime]) -> datetime | None:
    """The newest tick of a backlog, which is worked off before anything newer; None if there is none."""
    spec = draft.schedule.spec
    if spec.catch_up.policy is not CatchUpPolicy.ALL or not pending:
        return None
    if spec.concurrency_policy is ConcurrencyPolicy.ALLOW:
        return pending[-1] if len(pending) > AT_ONCE else None
    if spec.concurrency_policy is ConcurrencyPolicy.REPLACE:
        return None
    if not draft.was_busy:
        return pending[-1] if len(chosen) > 1 else None
    return max((tick for tick in pending if draft.now - tick > LATE), default=None)


def _work_off(draft: Draft, due: Sequence[datetime], pending: Sequence[datetime]) -> None:
    """Create the oldest of a backlog: as many as the policy allows."""
    left = list(pending)
    while left and len(draft.runs) < AT_ONCE and not draft.blocked() and draft.run(left[0]):
        left.pop(0)
    if left:
        draft.cursor = max((tick for tick in due if tick < left[0]), default=draft.cursor)
        draft.wake_at_deadline(left[0])
        if not draft.blocked() and draft.name(left[0]) not in draft.held:
            draft.wakes.append(draft.now)
        return
    draft.cursor = max(due, default=draft.cursor)
    if draft.until is not None:
        draft.cursor = max(draft.cursor, draft.until)
    draft.until = None
    if not draft.blocked():
        draft.wakes.append(draft.now)
        return
    # What came due meanwhile was not seen at its time only because the backlog went first.
    meanwhile = _released(draft)
    if meanwhile:
        _by_policy(draft, meanwhile, _startable(draft, meanwhile))


def _by_policy(draft: Draft, due: Sequence[datetime], pending: Sequence[datetime]) -> None:
    """Decide on ticks that are not a backlog."""
    policy = draft.schedule.spec.concurrency_policy
    stopped: datetime | None = None
    if policy is ConcurrencyPolicy.ALLOW:
        stopped = min((tick for tick in pending if not draft.run(tick)), default=None)
    elif policy is ConcurrencyPolicy.FORBID:
        stopped = _forbid(draft, pending)
    elif pending:
        stopped = _one_waits(draft, pending)
    elif policy is ConcurrencyPolicy.REPLACE and draft.waiting is not None and draft.ran(due[-1]):
        draft.replace_waiting(None)
    if stopped is None:
        draft.cursor = due[-1]
    else:
        draft.cursor = max((tick for tick in due if tick < stopped), default=draft.cursor)


def _forbid(draft: Draft, pending: Sequence[datetime]) -> datetime | None:
    """The tick that cannot be created at the moment, if there is one."""
    for tick in pending:
        if draft.busy:
            draft.skip(tick, Unrun.SKIPPED, UnrunReason.STILL_RUNNING)
        elif not draft.run(tick):
            return tick
    return None


def _one_waits(draft: Draft, pending: Sequence[datetime]) -> datetime | None:
    """The newest tick runs, or waits for the end of an earlier run. Returns it if it can do neither now."""
    newest = pending[-1]
    if not draft.busy and draft.waiting is None:
        if not draft.run(newest):
            return newest
    else:
        draft.replace_waiting(newest)
        draft.wake_at_deadline(newest)
    for tick in pending[:-1]:
        draft.skip(tick, Unrun.SKIPPED, UnrunReason.REPLACED)
    return None
