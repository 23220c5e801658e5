"""Creates the Tasks of schedules: each at most once, whoever asks and however often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain.manifests import run_manifest, same_run
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import Requests, tasks_path
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.schedules.known import KnownSchedule, Made
from taskflow_operator.schedules.ports import PastRuns
from taskflow_operator.schedules.rows import created_row
from taskflow_operator.schedules.rules.runs import Child, Refusal, RefusalReason, Run

log = get_logger(__name__)
AT_ONCE = 8
"""Requests for one schedule."""
FORMER_LEADER = timedelta(seconds=10)
"""How much later than this process began, by its clock, another one may have thought that it leads."""
LONGEST_PAUSE = timedelta(seconds=60)


class RunCreator:
    """Creates Tasks by names that follow from the tick. A name that is taken by the same run is a run that is done,
    whoever created it.

    A run that may have been created before, of which no Task is there, is looked up in the history first: somebody may
    have deleted it.

    Args:
        kube: the API server.
        past: the history.
        now: the time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        kube: Requests,
        past: PastRuns,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._past = past
        self._now = now
        self._clock = clock
        self._began = now()

    def begin(self) -> None:
        """This process leads from now on. Runs of ticks before may be another's."""
        self._began = self._now()

    async def create(self, known: KnownSchedule, runs: Sequence[Run]) -> bool:
        """Create Tasks, and enter them in `known.made`, or why not in `known.refused`; whether all of them exist.

        Raises:
            Unavailable: the API server does not answer; some may exist all the same.
        """
        left = await self._not_done(known, runs)
        for start in range(0, len(left), AT_ONCE):
            some = left[start : start + AT_ONCE]
            results = await asyncio.gather(*(self._create_one(known, run) for run in some), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        return not any(run.name in known.refused for run in runs)

    async def _not_done(self, known: KnownSchedule, runs: Sequence[Run]) -> list[Run]:
        """Runs that have never been created, as far as anybody knows. Those of which nobody can tell are refused."""
        doubtful = [run for run in runs if self._is_doubtful(known, run)]
        if not doubtful:
            return list(runs)
        namespace = known.schedule.namespace
        try:
            past = await self._past.ran(namespace, [run.name for run in doubtful])
            outcomes = {name: await self._past.outcome(namespace, name) for name in past}
        except Unavailable as error:
            dependency_health.failed(error)
            for run in doubtful:
                why = "the history does not say yet whether this run was created before: " + str(error)
                self._refuse(known, run, RefusalReason.HISTORY_UNAVAILABLE, why)
            unknown = {run.name for run in doubtful}
            return [run for run in runs if run.name not in unknown]
        for run in doubtful:
            if run.name in past:
                # One that has no end there was deleted before it had one.
                phase = outcomes[run.name] or Phase.CANCELLED
                self._done(known, run, _past_child(run, phase), past[run.name])
        return [run for run in runs if run.name not in past]

    def _is_doubtful(self, known: KnownSchedule, run: Run) -> bool:
        # A backfill asks for ticks of the past, of which many may have run.
        return bool(run.backfill) or run.name in known.doubtful or run.tick <= self._began + FORMER_LEADER

    async def _create_one(self, known: KnownSchedule, run: Run) -> None:
        schedule = known.schedule
        body = run_manifest(schedule, run)
        known.doubtful.add(run.name)
        try:
            made = await self._kube.request("POST", tasks_path(schedule.namespace), body)
        except Conflict:
            await self._found(known, run, body)
        except Unavailable:
            raise
        except TaskflowError as error:
            # A quota, a policy, missing rights, a template that Task does not admit, a namespace that ends.
            known.doubtful.discard(run.name)
            self._refuse(known, run, RefusalReason.CREATE_REFUSED, str(error))
        else:
            task = Task.from_object(made)
            self._done(known, run, Child.of(task), task.uid)
            if not run.backfill and not run.token:
                metrics.SCHEDULE_DELAY.observe(max((self._now() - run.release).total_seconds(), 0.0))
            metrics.SCHEDULE_TICKS.labels(namespace=schedule.namespace, outcome="created").inc()
            log.info("run_created", namespace=schedule.namespace, schedule=schedule.name, name=run.name, uid=task.uid)

    async def _found(self, known: KnownSchedule, run: Run, wanted: Mapping[str, Any]) -> None:
        """The name is taken: by the same run, or by something else."""
        namespace = known.schedule.namespace
        try:
            found = await self._kube.request("GET", tasks_path(namespace, run.name))
        except NotFound:
            # Deleted since; the history knows whether it was this run.
            raise Unavailable(f"Task {namespace}/{run.name} was deleted a moment ago") from None
        if same_run(found, wanted):
            task = Task.from_object(found)
            self._done(known, run, Child.of(task), task.uid)
            return
        known.doubtful.discard(run.name)
        self._refuse(known, run, RefusalReason.CHILD_NAME_TAKEN, f"another Task is called {run.name}")

    def _done(self, known: KnownSchedule, run: Run, child: Child, uid: str) -> None:
        schedule = known.schedule
        known.made[run.name] = Made(child, uid, self._clock())
        known.refused.pop(run.name, None)
        known.tries.pop(run.name, None)
        known.rows.append(created_row(schedule, run, uid, self._now()))

    def _refuse(self, known: KnownSchedule, run: Run, reason: RefusalReason, message: str) -> None:
        tries = known.tries[run.name] = known.tries.get(run.name, 0) + 1
        pause = min(timedelta(seconds=2 ** min(tries - 1, 10)), LONGEST_PAUSE)
        known.refused[run.name] = Refusal(reason, message, self._now() + pause)
        known.overdue.setdefault(run.name, run.release)
        if tries == 1 and reason is not RefusalReason.HISTORY_UNAVAILABLE:
            schedule = known.schedule
            metrics.SCHEDULE_TICKS.labels(namespace=schedule.namespace, outcome="refused").inc()
            log.warning(
                "run_refused",
                namespace=schedule.namespace,
                schedule=schedule.name,
                name=run.name,
                reason=reason.value,
                error=message,
            )


def _past_child(run: Run, phase: Phase) -> Child:
    return Child(
        name=run.name,
        created=run.tick,
        tick=None if run.token else run.tick,
        phase=phase,
        backfill=run.backfill,
    )
