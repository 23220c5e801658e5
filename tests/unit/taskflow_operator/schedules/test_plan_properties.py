"""What holds for every schedule, whatever happens to it."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskflow_core.domain.calendar import calendar_of
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.taskschedule import ConcurrencyPolicy
from taskflow_operator.schedules.rules.plan import plan
from taskflow_operator.schedules.rules.runs import Child, Plan, Refusal, RefusalReason
from tests.unit.taskflow_operator.schedules.builders import MINUTE, Life, at, make_schedule

SECOND = timedelta(seconds=1)
START = at("2026-10-24T23:30")
"""Shortly before the clocks of Berlin are put back."""
TIMINGS = st.sampled_from(
    [
        {"every": {"seconds": 10}},
        {"every": {"seconds": 600, "anchor": "2026-01-01T00:03:07Z"}},
        {"schedules": ["* * * * *"]},
        {"schedules": ["*/7 * * * *", "30 2,3 * * *"], "timeZone": "Europe/Berlin"},
        {"schedules": ["H/10 * * * *"], "timeZone": "Australia/Lord_Howe"},
    ]
)
FIELDS = st.fixed_dictionaries(
    {
        "concurrencyPolicy": st.sampled_from(list(ConcurrencyPolicy)),
        "catchUp": st.fixed_dictionaries(
            {"policy": st.sampled_from(["None", "Last", "All"]), "limit": st.sampled_from([1, 3, 1000])}
        ),
        "jitterSeconds": st.sampled_from([0, 0, 5, 300]),
        "startingDeadlineSeconds": st.sampled_from([None, None, 301, 900]),
    }
)
GAPS = st.one_of(st.integers(0, 90), st.integers(0, 1800), st.just(4 * 3600))


def life(timing: dict[str, Any], fields: dict[str, Any]) -> Life:
    schedule = make_schedule(**timing, **{name: value for name, value in fields.items() if value is not None})
    return Life(schedule.model_copy(update={"created": START}))


@settings(max_examples=150, deadline=None)
@given(TIMINGS, FIELDS, st.lists(st.tuples(GAPS, st.booleans()), min_size=1, max_size=12))
def test_each_tick_is_run_skipped_or_missed_once(
    timing: dict[str, Any], fields: dict[str, Any], steps: list[tuple[int, bool]]
) -> None:
    it, now = life(timing, fields), START
    calendar = calendar_of(it.schedule.spec, "team-a", "nightly")
    limit = it.schedule.spec.catch_up.limit
    for gap, ends in steps:
        now += gap * SECOND
        before = it.status.cursor or START
        created = it.step(now)
        ticks = [it.tasks[name].tick for name in created]
        assert ticks == sorted(ticks, key=str)
        assert len(created) <= max(limit, 1) + 1
        assert all(tick is not None and tick <= now for tick in ticks)
        again = it.decide(now)
        assert (again.runs, again.skipped, again.cancel) == ((), (), ())
        assert again.status == it.status
        cursor = it.status.cursor
        assert cursor is not None
        seen = calendar.due(START, cursor, 100_000)
        waiting = int(it.status.waiting is not None)
        # The walk is bounded, so not all ticks of a long outage are counted.
        if len(calendar.due(before, now, 1001)) > 1000:
            return
        assert len(it.created) + it.status.skipped + it.status.missed + waiting == len(seen)
        if ends:
            it.end_all()


@settings(max_examples=150, deadline=None)
@given(TIMINGS, st.lists(st.integers(0, 900), min_size=1, max_size=8))
def test_how_often_a_decision_is_made_does_not_matter_if_all_are_caught_up(
    timing: dict[str, Any], gaps: list[int]
) -> None:
    fields = {"concurrencyPolicy": "Allow", "catchUp": {"policy": "All", "limit": 1000}}
    often, once = life(timing, fields), life(timing, fields)
    now = START
    for gap in gaps:
        now += gap * SECOND
        often.step(now)
    assert once.step(now) == often.created
    assert once.status.cursor == often.status.cursor


@settings(max_examples=150, deadline=None)
@given(TIMINGS, FIELDS, st.lists(st.tuples(GAPS, st.booleans()), min_size=1, max_size=10))
def test_only_allow_has_two_open_tasks(
    timing: dict[str, Any], fields: dict[str, Any], steps: list[tuple[int, bool]]
) -> None:
    it, now = life(timing, fields), START
    if it.schedule.spec.concurrency_policy is ConcurrencyPolicy.ALLOW:
        return
    for gap, ends in steps:
        now += gap * SECOND
        it.step(now)
        assert sum(child.open for child in it.tasks.values()) <= 1
        if ends:
            it.end_all()


class Operator:
    """One that reads, plans, creates one Task after the other, and writes; it may die after each step."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.version = 0
        self.left: list[Any] = []


class TwoOperators(RuleBasedStateMachine):
    """Two of them at once, deaths after each step, steps of the clock, edits, and users who delete what has ended."""

    @initialize(timing=TIMINGS, fields=FIELDS)
    def begin(self, timing: dict[str, Any], fields: dict[str, Any]) -> None:
        self.schedule = life(timing, fields).schedule
        self.timing = timing
        self.version, self.now = 1, START
        self.tasks: dict[str, Child] = {}
        self.history: dict[str, Child] = {}
        self.operators = [Operator(), Operator()]
        self.runs: dict[str, int] = {}
        self.forbidden_before: dict[int, Any] = {}

    @rule(gap=GAPS)
    def time_passes(self, gap: int) -> None:
        self.now += gap * SECOND

    @rule(minutes=st.sampled_from([-60, -1, 60]))
    def the_clock_steps(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    @rule(which=st.integers(0, 1))
    def an_operator_decides(self, which: int) -> None:
        operator = self.operators[which]
        known = [*self.tasks.values(), *(child for name, child in self.history.items() if name not in self.tasks)]
        operator.plan = plan(self.schedule, known, self.now)
        operator.version, operator.left = self.version, list(operator.plan.runs)

    @precondition(lambda self: any(each.left for each in self.operators))
    @rule(which=st.integers(0, 1))
    def an_operator_creates_one(self, which: int) -> None:
        operator = self.operators[which]
        if not operator.left:
            return
        run = operator.left.pop(0)
        # The API server answers 409, or the history knows it: that is done.
        if run.name in self.tasks or run.name in self.history:
            return
        self.tasks[run.name] = Child(run.name, self.now, run.tick, Phase.RUNNING)
        self.runs[run.name] = self.runs.get(run.name, 0) + 1

    @rule(which=st.integers(0, 1))
    def an_operator_writes(self, which: int) -> None:
        operator = self.operators[which]
        if operator.plan is None or operator.left:
            return
        if operator.version == self.version:
            self.schedule = self.schedule.model_copy(update={"status": operator.plan.status})
            self.version += 1
        operator.plan = None

    @rule(which=st.integers(0, 1))
    def an_operator_dies(self, which: int) -> None:
        self.operators[which] = Operator()

    @rule()
    def a_task_ends(self) -> None:
        for name, child in self.tasks.items():
            if child.open:
                ended = Child(name, child.created, child.tick, Phase.SUCCEEDED)
                self.tasks[name] = self.history[name] = ended
                return

    @rule(seed=st.integers(0, 9))
    def a_user_deletes_one_that_ended(self, seed: int) -> None:
        ended = sorted(name for name, child in self.tasks.items() if not child.open)
        if ended:
            del self.tasks[random.Random(seed).choice(ended)]

    @rule(timing=TIMINGS)
    def a_user_edits_the_timing(self, timing: dict[str, Any]) -> None:
        fresh = {"schedules": (), "every": None, "time_zone": "Etc/UTC"}
        spec = life(timing, {}).schedule.spec
        changed = {name: getattr(spec, name) for name in fresh}
        self._edit(changed)

    @rule()
    def a_user_suspends_or_resumes(self) -> None:
        self._edit({"suspend": not self.schedule.spec.suspend})

    def _edit(self, changed: dict[str, Any]) -> None:
        spec = self.schedule.spec.model_copy(update=changed)
        self.schedule = self.schedule.model_copy(update={"spec": spec, "generation": self.schedule.generation + 1})
        self.version += 1

    @invariant()
    def no_tick_ran_twice(self) -> None:
        assert all(count == 1 for count in getattr(self, "runs", {}).values())


TwoOperators.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_two_operators_run_no_tick_twice = TwoOperators.TestCase


@settings(max_examples=100, deadline=None)
@given(TIMINGS, FIELDS, st.lists(st.tuples(GAPS, st.integers(0, 3), st.booleans()), min_size=1, max_size=10))
def test_an_operator_that_dies_after_any_step_loses_and_repeats_nothing(
    timing: dict[str, Any], fields: dict[str, Any], steps: list[tuple[int, int, bool]]
) -> None:
    """Its counts are those of one that lived, as long as it comes back before the next tick."""
    it, twin, now = life(timing, fields), life(timing, fields), START
    for gap, dies_after, ends in steps:
        now += gap * SECOND
        for _ in range(dies_after):
            # It plans and creates some of them, and dies before it writes.
            it.decide(now)
            first = it.last.runs[: dies_after - 1]
            for run in first:
                it.tasks[run.name] = Child(run.name, now, run.tick, Phase.RUNNING)
                it.created.append(run.name)
        it.step(now)
        twin.step(now)
        assert sorted(it.created) == sorted(set(it.created))
        assert sorted(it.created) == sorted(twin.created)
        assert (it.status.skipped, it.status.missed) == (twin.status.skipped, twin.status.missed)
        if ends:
            it.end_all()
            twin.end_all()


@settings(max_examples=100, deadline=None)
@given(TIMINGS, FIELDS, st.lists(st.tuples(GAPS, st.booleans()), min_size=1, max_size=10), st.randoms())
def test_refused_runs_are_counted_once_in_the_end(
    timing: dict[str, Any], fields: dict[str, Any], steps: list[tuple[int, bool]], draw: random.Random
) -> None:
    it, now = life(timing, fields), START
    calendar = calendar_of(it.schedule.spec, "team-a", "nightly")
    for gap, ends in steps:
        now += gap * SECOND
        before = it.status.cursor or START
        for _ in range(30):
            it.decide(now)
            refused = {
                run.name: Refusal(RefusalReason.CREATE_REFUSED, "quota", now + 30 * SECOND)
                for run in it.last.runs
                if draw.random() < 0.3
            }
            for run in it.last.runs:
                if run.name not in refused:
                    it.tasks[run.name] = Child(run.name, now, run.tick, Phase.RUNNING)
                    it.created.append(run.name)
            if refused:
                it.refused |= refused
                it.decide(now)
            if it.last.runs and refused:
                continue
            it.write()
            if it.last.wake_at is None or it.last.wake_at > now:
                break
        if len(calendar.due(before, now, 1001)) > 1000:
            return
        cursor = it.status.cursor
        assert cursor is not None
        waiting = int(it.status.waiting is not None)
        ticks = [it.tasks[name].tick for name in it.created]
        decided = len([tick for tick in ticks if tick is not None and tick <= cursor])
        total = len(calendar.due(START, cursor, 100_000))
        assert decided + it.status.skipped + it.status.missed + waiting == total
        assert len(set(it.created)) == len(it.created)
        if ends:
            it.end_all()
