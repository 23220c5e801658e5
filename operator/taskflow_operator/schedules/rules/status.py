"""Builds the status of a TaskSchedule."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from taskflow_core.domain.calendar import InvalidSchedule, UnknownTimeZone
from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.manifests import run_now_name
from taskflow_core.domain.resource import Condition, rfc3339
from taskflow_core.domain.taskschedule import LastOutcome, TaskSchedule, TaskScheduleSpec, TaskScheduleStatus
from taskflow_operator.schedules.rules.backfills import BackfillPlan
from taskflow_operator.schedules.rules.runs import Child, Refusal, RefusalReason, Run, Unrun
from taskflow_operator.schedules.rules.ticks import Draft

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
SUSPENDED = "Suspended"
NAME_TAKEN = "NameTaken"
SHOWN_ACTIVE = 10
SHOWN_CHARS = 256


def described(
    draft: Draft,
    children: Collection[Child],
    runs: Sequence[Run],
    backfills: Sequence[BackfillPlan],
    upcoming: Sequence[datetime],
    refused: Mapping[str, Refusal],
) -> TaskScheduleStatus:
    """The status that holds when all runs exist.

    Args:
        draft: what was decided.
        children: Tasks of the schedule.
        runs: to be created.
        backfills: what was decided for each; empty while the schedule is suspended.
        upcoming: the next ticks.
        refused: by name, runs that cannot be created at the moment.
    """
    schedule = draft.schedule
    former = schedule.status
    names = {each.name for each in schedule.spec.backfills}
    outcomes = [each.outcome for each in draft.skipped]
    seen_to = schedule.run_now and not token_pending(draft, runs)
    update: dict[str, Any] = {
        "observed_generation": schedule.generation,
        "schedule": shown(schedule.spec),
        "timing": schedule.spec.timing,
        "cursor": draft.cursor,
        "next_schedule_time": upcoming[0] if upcoming else None,
        "next_schedule_times": tuple(upcoming),
        "resolved_schedules": draft.calendar.resolved,
        "catching_up_until": draft.until,
        "waiting": draft.waiting,
        "run_now": token_digest(schedule.run_now) if seen_to else former.run_now,
        "skipped": former.skipped + outcomes.count(Unrun.SKIPPED),
        "missed": former.missed + outcomes.count(Unrun.MISSED),
        "backfills": tuple(each.status for each in backfills)
        or tuple(each for each in former.backfills if each.name in names),
        "conditions": _conditions(schedule, _state(draft, upcoming, refused), refused, draft.now),
    }
    return former.model_copy(update=update | _tasks(schedule, children, runs))


def stalled(
    schedule: TaskSchedule, children: Collection[Child], error: InvalidSchedule | UnknownTimeZone, now: datetime
) -> TaskScheduleStatus:
    """The status of a schedule that runs nothing until it is edited."""
    reason = type(error).__name__
    update = {
        "observed_generation": schedule.generation,
        "schedule": shown(schedule.spec),
        # So that what is written instead counts as an edit, and runs nothing of the time before it.
        "timing": schedule.spec.timing,
        "next_schedule_time": None,
        "next_schedule_times": (),
        "resolved_schedules": (),
        "conditions": _conditions(schedule, (False, reason, str(error)), {}, now, stalled=True),
    }
    return schedule.status.model_copy(update=update | _tasks(schedule, children, ()))


def shown(spec: TaskScheduleSpec) -> str:
    """The timing as one text, for printing."""
    text = f"every {_length(spec.every.seconds)}" if spec.every else "; ".join(spec.schedules)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def token_digest(token: str) -> str:
    """What the status keeps of a token of `taskflow.dev/run-now`."""
    return sha256(token.encode()).hexdigest()[:8]


def token_pending(draft: Draft, runs: Sequence[Run]) -> bool:
    """Whether a run by a token is still to be created, after these were."""
    schedule = draft.schedule
    if token_digest(schedule.run_now) == schedule.status.run_now:
        return False
    return not draft.declined and run_now_name(schedule.name, schedule.run_now) not in draft.known.union(
        run.name for run in runs
    )


def _tasks(schedule: TaskSchedule, children: Collection[Child], runs: Sequence[Run]) -> dict[str, Any]:
    """What the status says of the Tasks."""
    former = schedule.status
    in_order = sorted(children, key=lambda child: (child.created, child.name))
    active = [child.name for child in in_order if child.open] + [run.name for run in runs]
    found: dict[str, Any] = {"active": tuple(active[:SHOWN_ACTIVE]), "active_count": len(active)}
    own = [child for child in in_order if not child.backfill]
    ticks = [former.last_schedule_time, *(child.tick for child in own)]
    ticks += [run.tick for run in runs if not run.backfill and not run.token]
    found["last_schedule_time"] = max((tick for tick in ticks if tick is not None), default=None)
    latest = next((run for run in reversed(runs) if not run.backfill), None)
    if latest is not None:
        return found | {"last_task_name": latest.name, "last_outcome": LastOutcome.ACTIVE}
    names = {child.name: child for child in own}
    last = names.get(former.last_task_name)
    if own and (last is None or own[-1].created >= last.created) and not _older(own[-1], former, last):
        last = own[-1]
    if last is not None:
        return found | {"last_task_name": last.name, "last_outcome": LastOutcome.of(last.phase)}
    if former.last_outcome is LastOutcome.ACTIVE:
        # Somebody deleted it, which cancels it.
        return found | {"last_outcome": LastOutcome.CANCELLED}
    return found


def _older(child: Child, former: TaskScheduleStatus, last: Child | None) -> bool:
    """Whether a Task is older than the latest one, which is gone."""
    if last is not None or former.last_schedule_time is None or not former.last_task_name:
        return False
    return child.tick is None or child.tick <= former.last_schedule_time


def _state(draft: Draft, upcoming: Sequence[datetime], refused: Mapping[str, Refusal]) -> tuple[bool, str, str]:
    """Whether the schedule is ready, with a reason and a message."""
    for name, refusal in sorted(refused.items()):
        return False, refusal.reason, f"Task {name}: {refusal.message}"
    if draft.schedule.spec.suspend:
        return True, "Suspended", "suspended by spec.suspend"
    if upcoming:
        return True, "Scheduled", f"next at {rfc3339(upcoming[0])}"
    return True, "Ended", "no tick follows"


def _conditions(
    schedule: TaskSchedule,
    state: tuple[bool, str, str],
    refused: Mapping[str, Refusal],
    now: datetime,
    *,
    stalled: bool = False,
) -> tuple[Condition, ...]:
    """Ready, Reconciling and Stalled by the rules of kstatus; Suspended and NameTaken once they were true."""
    ready, reason, message = state
    waits = not ready and not stalled
    taken = [each.message for each in refused.values() if each.reason is RefusalReason.CHILD_NAME_TAKEN]
    suspended = schedule.spec.suspend
    values = [
        (READY, ready, reason, message),
        (RECONCILING, waits, "Retrying" if waits else "Idle", message if waits else ""),
        (STALLED, stalled, reason if stalled else "Valid", message if stalled else ""),
        (SUSPENDED, suspended, "Suspended" if suspended else "Active", "spec.suspend is true" if suspended else ""),
        (NAME_TAKEN, bool(taken), "ChildNameTaken" if taken else "Free", "; ".join(taken)),
    ]
    conditions = schedule.status.conditions
    for kind, status, why, text in values:
        if kind in (SUSPENDED, NAME_TAKEN) and not status and schedule.status.condition(kind) is None:
            continue
        conditions = set_condition(
            conditions, kind, status=status, reason=why, message=text, generation=schedule.generation, now=now
        )
    return conditions


def _length(seconds: int) -> str:
    """A length of time as the API server prints ages, such as `1h30m`."""
    parts = zip((86400, 3600, 60, 1), "dhms", strict=True)
    text = ""
    for size, unit in parts:
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text
