from __future__ import annotations

from datetime import timedelta

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Owner
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.tasks.open_tasks import FORGET_SECONDS, OpenTasks
from taskflow_operator.tasks.queue_counts import STALE_ENTRIES
from tests.builders import NOW, UID, make_task


def test_a_task_is_taken_note_of_once() -> None:
    tasks = OpenTasks()
    assert tasks.add(make_task())
    assert not tasks.add(make_task(name="renamed"))
    assert [known.task.name for known in tasks] == ["report"]


def test_a_closed_task_does_not_come_back_from_a_late_list() -> None:
    tasks = OpenTasks()
    tasks.add(make_task())
    tasks.close(UID, 100.0)
    assert tasks.get(UID) is None
    assert not tasks.add(make_task())
    tasks.prune(100.0 + FORGET_SECONDS)
    assert not tasks.add(make_task())
    tasks.prune(101.0 + FORGET_SECONDS)
    assert tasks.add(make_task())


def test_a_new_attempt_starts_its_events_anew_and_a_new_phase_does_not() -> None:
    tasks = OpenTasks()
    tasks.add(make_task(phase=Phase.RUNNING))
    known = tasks.get(UID)
    assert known is not None
    known.sequence = 2
    tasks.set_status(UID, known.task.status.model_copy(update={"phase": Phase.QUEUED}))
    assert known.sequence == 2
    tasks.set_status(UID, known.task.status.model_copy(update={"attempt": 2}))
    assert known.sequence == -1


def test_tasks_may_be_closed_while_they_are_looked_through() -> None:
    tasks = OpenTasks()
    for number in range(3):
        tasks.add(make_task(uid=str(number)))
    for known in tasks:
        tasks.close(known.task.uid, 0)
    assert len(tasks) == 0


def test_a_pools_queues_count_for_its_namespace_alone() -> None:
    pools = ServedQueues()
    assert pools.put("a", "one", frozenset({"x"}))
    assert pools.put("a", "two", frozenset({"x", "y"}))
    assert pools.put("b", "one", frozenset({"z"}))
    assert pools.queues("a") == {"x", "y"}
    assert pools.queues("none") == frozenset()
    assert not pools.put("a", "one", frozenset({"x"}))
    assert pools.remove("a", "two")
    assert not pools.remove("a", "two")
    assert pools.queues("a") == {"x"}


def test_isolated_tasks_are_known_apart_and_wait_for_no_warm_worker() -> None:
    tasks = OpenTasks()
    queued = {"queued_time": NOW}
    tasks.add(make_task(phase=Phase.QUEUED, status=queued, isolation="Pod"))
    assert [known.task.uid for known in tasks.isolated()] == [UID]
    assert (tasks.queues.count("team-a", "default", Phase.QUEUED), tasks.queues.oldest("team-a", "default")) == (
        0,
        None,
    )
    tasks.add(make_task(uid="warm", phase=Phase.QUEUED, status=queued))
    assert (tasks.queues.count("team-a", "default", Phase.QUEUED), tasks.queues.oldest("team-a", "default")) == (1, NOW)
    tasks.close(UID, 0.0)
    assert tasks.isolated() == []
    assert tasks.queues.count("team-a", "default", Phase.QUEUED) == 1


def test_one_that_waits_for_long_keeps_nothing_of_those_that_passed_it() -> None:
    tasks = OpenTasks()
    tasks.add(make_task(uid="first", name="first", phase=Phase.QUEUED, status={"queued_time": NOW}))
    for number in range(3 * STALE_ENTRIES):
        uid, later = str(number), NOW + timedelta(seconds=number + 1)
        tasks.add(make_task(uid=uid, name=uid, phase=Phase.QUEUED, status={"queued_time": later}))
        tasks.close(uid, 0)
    assert len(tasks.queues._queued["team-a", "default"]) <= STALE_ENTRIES + 5
    assert tasks.queues.oldest("team-a", "default") == NOW
    tasks.close("first", 0)
    assert tasks.queues.oldest("team-a", "default") is None


def test_children_are_the_open_tasks_of_an_owner() -> None:
    tasks = OpenTasks()
    owner = Owner(kind="TaskSchedule", name="nightly", uid="s-1")
    for uid, owned in (("a", owner), ("b", owner), ("c", None)):
        tasks.add(make_task(uid=uid, name=uid).model_copy(update={"owner": owned}))
    assert [known.task.uid for known in tasks.children("s-1")] == ["a", "b"]
    tasks.close("a", 0.0)
    assert [known.task.uid for known in tasks.children("s-1")] == ["b"]
    tasks.close("b", 0.0)
    assert tasks.children("s-1") == []


def test_a_task_that_is_closed_while_it_is_being_closed_stays_so() -> None:
    tasks = OpenTasks()
    tasks.add(make_task())
    known = tasks.get(UID)
    assert known is not None
    with tasks.closing(UID):
        assert known.closing
        tasks.close(UID, 0.0)
    assert known.closing
    tasks.prune(FORGET_SECONDS + 1)
    tasks.add(make_task())
    with pytest.raises(OSError, match="away"), tasks.closing(UID):
        raise OSError("away")
    again = tasks.get(UID)
    assert again is not None
    assert not again.closing
