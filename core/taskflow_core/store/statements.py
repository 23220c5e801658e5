"""The writes. Each is monotonic: repeating it, or an older one after it, changes nothing."""

from __future__ import annotations

from sqlalchemy import Executable, any_, bindparam, case, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on, insert
from sqlalchemy.types import Text

from taskflow_core.domain.events import SEQUENCE, EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.store.rows import AttemptRow, TaskRow
from taskflow_core.store.tables import attempts, run_once, tasks, timeline

_STARTED = SEQUENCE[EventKind.STARTED]


def _upsert_task() -> Executable:
    statement = insert(tasks)
    new = statement.excluded
    values = {
        name: new[name] for name in TaskRow.__slots__ if name not in ("uid", "started_at", "deleted_at", "labels")
    }
    return statement.on_conflict_do_update(
        index_elements=[tasks.c.uid],
        set_={
            **values,
            "started_at": func.coalesce(new.started_at, tasks.c.started_at),
            "deleted_at": func.coalesce(new.deleted_at, tasks.c.deleted_at),
            # An operator of the version before tells none.
            "labels": func.coalesce(new.labels, tasks.c.labels),
            "updated_at": func.now(),
        },
        where=tuple_(tasks.c.attempt, tasks.c.seq) < tuple_(new.attempt, new.seq),
    )


def _merge_attempt() -> Executable:
    """Start and end each as first told, and the end as a whole: never the reason of one and the time of another."""
    statement = insert(attempts)
    new = statement.excluded
    end = [name for name in AttemptRow.__slots__ if name not in ("uid", "attempt", "worker", "started_at")]
    return statement.on_conflict_do_update(
        index_elements=[attempts.c.uid, attempts.c.attempt],
        set_={
            "worker": func.coalesce(attempts.c.worker, new.worker),
            "started_at": func.coalesce(attempts.c.started_at, new.started_at),
            **{name: case((attempts.c.outcome.is_(None), new[name]), else_=attempts.c[name]) for name in end},
        },
        where=(attempts.c.started_at.is_(None) & new.started_at.is_not(None))
        | (attempts.c.outcome.is_(None) & new.outcome.is_not(None)),
    )


def _mark_running() -> Executable:
    """Derived from the attempts, not from the event, so that a start heard of before its task is not forgotten."""
    latest = (
        select(attempts.c.uid, attempts.c.attempt, attempts.c.started_at)
        .where(attempts.c.uid == any_(bindparam("uids", type_=ARRAY(Text))), attempts.c.started_at.is_not(None))
        .ext(distinct_on(attempts.c.uid))
        .order_by(attempts.c.uid, attempts.c.attempt.desc())
        .subquery()
    )
    return (
        update(tasks)
        .where(
            tasks.c.uid == latest.c.uid,
            tuple_(tasks.c.attempt, tasks.c.seq) < tuple_(latest.c.attempt, literal(_STARTED)),
        )
        .values(
            phase=Phase.RUNNING.value,
            reason=Reason.STARTED.value,
            message="",
            attempt=latest.c.attempt,
            seq=_STARTED,
            started_at=func.coalesce(tasks.c.started_at, latest.c.started_at),
            updated_at=func.now(),
        )
    )


def _keep_run() -> Executable:
    """A success stays for ever, another end until the next one."""
    statement = insert(run_once)
    new = statement.excluded
    values = ("uid", "phase", "finished_at", "result", "outputs")
    return statement.on_conflict_do_update(
        index_elements=[run_once.c.namespace, run_once.c.name, run_once.c.digest],
        set_={**{name: new[name] for name in values}, "used_at": func.now()},
        where=(run_once.c.phase != Phase.SUCCEEDED.value)
        & ((new.phase == Phase.SUCCEEDED.value) | (run_once.c.finished_at < new.finished_at)),
    )


UPSERT_TASK = _upsert_task()
KEEP_RUN = _keep_run()
MERGE_ATTEMPT = _merge_attempt()
MARK_RUNNING = _mark_running()
ADD_LINE = insert(timeline).on_conflict_do_nothing(index_elements=[timeline.c.event_id])
