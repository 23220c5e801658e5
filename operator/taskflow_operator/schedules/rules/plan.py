"""What to do with a TaskSchedule now: one pure decision over its specification, its status, and its Tasks."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from taskflow_core.domain.calendar import Calendar, InvalidSchedule, UnknownTimeZone, calendar_of
from taskflow_core.domain.manifests import run_name, run_now_name
from taskflow_core.domain.taskschedule import ConcurrencyPolicy, TaskSchedule
from taskflow_operator.schedules.rules.backfills import BackfillPlan, plan_backfill
from taskflow_operator.schedules.rules.runs import Child, Plan, Refusal, Run, Unrun, UnrunReason
from taskflow_operator.schedules.rules.status import SUSPENDED, described, stalled, token_digest, token_pending
from taskflow_operator.schedules.rules.ticks import Draft, decide_ticks, release

MICROSECOND = timedelta(microseconds=1)
SHOWN_NEXT = 3


def plan(
    schedule: TaskSchedule,
    children: Collection[Child],
    now: datetime,
    refused: Mapping[str, Refusal] | None = None,
) -> Plan:
    """What to do with a TaskSchedule.

    Its effects have an order: first `runs` are created, then `status` is written, with a test of the schedule's uid
    and resourceVersion. Whoever dies between is followed by one that plans the same runs, with the same names.

    Args:
        schedule: as last read.
        children: its Tasks, also those that were created a moment ago, and those that the history knows instead.
        now: the time.
        refused: by name, runs that cannot be created at the moment.
    """
    try:
        calendar = _calendar(schedule)
    except (InvalidSchedule, UnknownTimeZone) as error:
        return Plan(stalled(schedule, children, error, now))
    cursor = schedule.status.cursor or schedule.created
    open_now = [child for child in children if child.open and not child.backfill]
    known = {child.name: child for child in children}
    draft = Draft(
        schedule=schedule,
        calendar=calendar,
        now=now,
        cursor=cursor,
        was_busy=any(child.tick is None or child.tick <= cursor for child in open_now),
        busy=bool(open_now),
        known=frozenset(known),
        held=frozenset(name for name, refusal in (refused or {}).items() if refusal.retry_at > now),
        waiting=schedule.status.waiting,
        until=schedule.status.catching_up_until,
    )
    if _begins_anew(schedule):
        return _begin(draft, children)
    backfills: list[BackfillPlan] = []
    if schedule.spec.suspend:
        _suspend(draft)
    else:
        decide_ticks(draft)
        backfills = [
            plan_backfill(schedule, each, calendar, draft.cursor, known, draft.held) for each in schedule.spec.backfills
        ]
    asked = _run_now(draft)
    runs = (
        *(_run(draft, tick, release(schedule, calendar, tick)) for tick in draft.runs),
        *asked,
        *(replace(_run(draft, tick, now), backfill=each.status.name) for each in backfills for tick in each.ticks),
    )
    draft.stopped.update(each.stopped for each in backfills if each.stopped)
    stopped = {name: refusal for name, refusal in (refused or {}).items() if name in draft.stopped}
    return _finish(draft, children, runs, backfills, stopped)


def _calendar(schedule: TaskSchedule) -> Calendar:
    if schedule.unreadable:
        raise InvalidSchedule(f"spec cannot be read: {schedule.unreadable}")
    return calendar_of(schedule.spec, schedule.namespace, schedule.name)


def _begins_anew(schedule: TaskSchedule) -> bool:
    """Whether the timing was edited, or the schedule is resumed: then what has passed is past."""
    status, spec = schedule.status, schedule.spec
    if spec.suspend:
        return False
    suspended = status.condition(SUSPENDED)
    edited = bool(status.timing) and status.timing != spec.timing
    return edited or (suspended is not None and suspended.status == "True")


def _begin(draft: Draft, children: Collection[Child]) -> Plan:
    """Ticks count from now on. Nothing is created before that is written."""
    edited = draft.schedule.status.timing != draft.schedule.spec.timing
    draft.cursor = draft.now.replace(microsecond=0)
    draft.until = None
    draft.wakes.append(draft.now)
    return replace(_finish(draft, children, (), (), {}), timing_changed=edited)


def _suspend(draft: Draft) -> None:
    draft.until = None
    if draft.waiting is not None:
        if not draft.ran(draft.waiting):
            draft.skip(draft.waiting, Unrun.SKIPPED, UnrunReason.SUSPENDED)
        draft.waiting = None


def _run_now(draft: Draft) -> Sequence[Run]:
    """The run that the annotation asks for, once a token. It obeys the concurrency policy, and no suspension."""
    schedule = draft.schedule
    if not schedule.run_now or token_digest(schedule.run_now) == schedule.status.run_now:
        return ()
    name, tick = run_now_name(schedule.name, schedule.run_now), draft.now.replace(microsecond=0)
    if name in draft.known:
        return ()
    if name in draft.held:
        draft.stopped.add(name)
        return ()
    if draft.blocked():
        if schedule.spec.concurrency_policy is ConcurrencyPolicy.FORBID:
            draft.skip(tick, Unrun.SKIPPED, UnrunReason.STILL_RUNNING)
            draft.declined = True
        return ()
    draft.busy = True
    previous, following = draft.calendar.neighbours(tick + MICROSECOND)
    return (Run(name, tick, draft.now, previous, following, token=schedule.run_now),)


def _run(draft: Draft, tick: datetime, released: datetime) -> Run:
    passed = draft.schedule.spec.pass_
    previous = following = None
    if passed.previous_time is not None or passed.next_time is not None:
        previous, following = draft.calendar.neighbours(tick)
    return Run(run_name(draft.schedule.name, tick), tick, released, previous, following)


def _finish(
    draft: Draft,
    children: Collection[Child],
    runs: tuple[Run, ...],
    backfills: Sequence[BackfillPlan],
    refused: Mapping[str, Refusal],
) -> Plan:
    """The plan, with the status that holds when all its runs exist."""
    schedule, now = draft.schedule, draft.now
    upcoming = _upcoming(draft)
    wakes = [*draft.wakes, *(each.retry_at for each in refused.values())]
    if upcoming:
        wakes.append(release(schedule, draft.calendar, upcoming[0]))
    if any(each.again for each in backfills):
        wakes.append(now)
    skipped = tuple(sorted(draft.skipped, key=lambda each: each.tick))
    replaces = schedule.spec.concurrency_policy is ConcurrencyPolicy.REPLACE
    cancels = replaces and (draft.waiting is not None or _asks(draft, runs))
    open_now = [child for child in children if child.open and not child.backfill]
    return Plan(
        status=described(draft, children, runs, backfills, upcoming, refused),
        runs=runs,
        cancel=tuple(child.name for child in open_now if not child.cancelled) if cancels else (),
        skipped=skipped,
        wake_at=min(wakes, default=None),
    )


def _upcoming(draft: Draft) -> list[datetime]:
    """The next ticks, for people."""
    if draft.schedule.spec.suspend:
        return []
    time = max(draft.cursor, draft.now) if draft.unreleased is None else draft.unreleased - MICROSECOND
    return list(itertools.islice(draft.calendar.after(time), SHOWN_NEXT))


def _asks(draft: Draft, runs: Sequence[Run]) -> bool:
    """Whether a run by a token waits for the end of another one."""
    token = draft.schedule.run_now
    return draft.blocked() and bool(token) and token_pending(draft, runs)
