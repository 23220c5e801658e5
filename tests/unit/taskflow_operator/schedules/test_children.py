from __future__ import annotations

import time

from taskflow_core.domain.phases import Phase
from taskflow_operator.schedules.children import Children
from taskflow_operator.schedules.known import KnownSchedules, Made
from taskflow_operator.schedules.rules.runs import Child
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.retention import Expiry
from tests.builders import make_task
from tests.unit.taskflow_operator.fakes import at
from tests.unit.taskflow_operator.schedules.objects import SCHEDULE_UID, make_schedule, run_of


class Site:
    def __init__(self, **spec: object) -> None:
        self.tasks = OpenTasks()
        self.schedules = KnownSchedules()
        self.known = self.schedules.add(make_schedule(**spec))
        self.expired: list[str] = []
        self.changed: list[str] = []
        self.children = Children(self.tasks, self.schedules, expire=self.expire, changed=self.changed.append)
        self.tasks.added.append(self.children.added)

    def expire(self, entry: Expiry) -> None:
        self.expired.append(entry.uid)

    def finish(self, name: str, second: float, phase: Phase = Phase.SUCCEEDED) -> None:
        self.children.ended(run_of(name, tick=at(second), phase=phase, ended=at(second)))

    @property
    def names(self) -> list[str]:
        return sorted(self.children.of(self.known))


def test_children_are_the_open_tasks_the_finished_ones_and_those_just_made() -> None:
    site = Site()
    site.tasks.add(run_of("open"))
    site.tasks.add(make_task(uid="other", name="other"))
    site.finish("done", 1)
    site.known.made["made"] = Made(Child("made", at(0), at(0)), "made", 0.0)
    found = site.children.of(site.known)
    assert sorted(found) == ["done", "made", "open"]
    assert {name: each.child.open for name, each in found.items()} == {"done": False, "made": True, "open": True}


def test_what_was_made_is_known_by_the_watch_once_it_has_shown_it() -> None:
    site = Site()
    site.known.made["a"] = Made(Child("a", at(0), at(0)), "a", 0.0)
    site.tasks.add(run_of("a"))
    assert site.known.made == {}
    # Whoever made it knows already.
    assert site.changed == []
    assert site.names == ["a"]


def test_a_task_that_somebody_else_made_changes_its_schedule() -> None:
    site = Site()
    site.tasks.add(run_of("a"))
    site.tasks.add(make_task(uid="b", name="b"))
    assert site.changed == [SCHEDULE_UID]


def test_a_child_that_is_asked_to_end_says_so_before_the_watch_does() -> None:
    site = Site()
    site.tasks.add(run_of("a"))
    site.known.cancelled.add("a")
    assert site.children.of(site.known)["a"].child.cancelled


def test_a_child_whose_end_is_being_written_has_not_ended() -> None:
    site = Site()
    site.tasks.add(task := run_of("a"))
    site.tasks.set_status("a", task.status.model_copy(update={"phase": Phase.SUCCEEDED}))
    assert site.children.of(site.known)["a"].child.open


def test_the_end_of_a_child_changes_its_schedule_and_it_stays_until_it_is_deleted() -> None:
    site = Site()
    site.finish("a", 1)
    assert SCHEDULE_UID in site.changed
    assert list(site.children.known()) == ["a"]
    site.children.forget("a")
    site.children.forget("a")
    assert site.names == []


def test_a_child_whose_resource_is_gone_changes_its_schedule_too() -> None:
    site = Site()
    site.tasks.add(run_of("a"))
    site.tasks.close("a", time.monotonic())
    site.changed.clear()
    site.children.ended(run_of("a"))
    assert (site.changed, site.names) == ([SCHEDULE_UID], [])


def test_beyond_its_limits_the_oldest_ends_go_whatever_order_they_are_told_in() -> None:
    site = Site(successfulHistoryLimit=2, failedHistoryLimit=1)
    for name, second in (("c", 3), ("a", 1), ("d", 4), ("b", 2)):
        site.finish(name, second)
    assert site.expired == ["a", "b"]
    for name, second, phase in (("e", 5, Phase.FAILED), ("f", 6, Phase.CANCELLED)):
        site.finish(name, second, phase)
    assert site.expired == ["a", "b", "e"]
    # Those that go are children until they are gone.
    assert site.names == ["a", "b", "c", "d", "e", "f"]
    for uid in "abe":
        site.children.forget(uid)
    assert site.names == ["c", "d", "f"]


def test_the_same_end_told_twice_counts_once() -> None:
    site = Site(successfulHistoryLimit=1)
    site.finish("a", 1)
    site.finish("a", 1)
    assert site.expired == []


def test_a_limit_of_none_keeps_nothing() -> None:
    site = Site(successfulHistoryLimit=0, failedHistoryLimit=0)
    site.finish("a", 1)
    assert site.expired == ["a"]


def test_a_lower_limit_holds_for_those_that_there_are() -> None:
    site = Site()
    for number in range(3):
        site.finish(str(number), number)
    site.known.schedule = make_schedule(successfulHistoryLimit=1)
    site.children.trim(SCHEDULE_UID)
    assert site.expired == ["0", "1"]


def test_the_tasks_of_a_schedule_that_is_gone_stay() -> None:
    site = Site(successfulHistoryLimit=0)
    site.schedules.remove(SCHEDULE_UID)
    site.finish("a", 1)
    assert site.expired == []
    site.children.forget("a")
    assert not site.children.known()


def test_tasks_of_nobody_are_ignored() -> None:
    site = Site(successfulHistoryLimit=0)
    site.children.ended(make_task(uid="x", phase=Phase.SUCCEEDED, status={"completion_time": at(1)}))
    site.children.forget("x")
    assert (site.expired, site.changed) == ([], [])
