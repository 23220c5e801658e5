from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Unavailable
from taskflow_operator.tasks.finished_observer import FinishedObserver
from taskflow_operator.tasks.retention import Expiry, Retention
from tests.builders import NOW, make_object, make_task
from tests.unit.taskflow_operator.fakes import FakeKube, at


class Past:
    def __init__(self, *uids: str) -> None:
        self.uids = set(uids)
        self.down = False

    async def stored(self, uids: Sequence[str]) -> set[str]:
        if self.down:
            raise Unavailable("down")
        return self.uids & set(uids)


class Kept:
    """Retention over fakes; `pass_to` deletes what is due at that time and tells what was deleted so far."""

    def __init__(self, *stored: str, default: int | None = None, per_namespace: int | None = None) -> None:
        self.now = NOW
        self.needed: set[str] = set()
        """What an owner still needs."""
        self.kube = FakeKube()
        self.past = Past(*stored)
        self.retention = Retention(
            cast("Any", self.kube),
            self.past,
            default_seconds=default,
            per_namespace=per_namespace,
            now=lambda: self.now,
        )
        self.retention.needed.append(lambda task: task.uid in self.needed)
        self.observer = FinishedObserver(cast("Any", self.kube), self.retention)

    def finish(self, task: Task) -> None:
        self.show(task)
        self.retention.finished(task)

    def show(self, task: Task) -> None:
        """The API server has it like this."""
        self.kube.objects[task.name] = make_object(task)

    async def pass_to(self, when: datetime) -> list[str]:
        self.now = when
        if due := self.retention._take():
            await self.retention._delete(due)
        return [body["preconditions"]["uid"] for body in self.kube.bodies if body is not None]


def done(uid: str, *, seconds: float = 0, ttl: int | None = None, namespace: str = "team-a") -> Task:
    return make_task(
        uid=uid,
        name=uid,
        namespace=namespace,
        phase=Phase.SUCCEEDED,
        status={"completion_time": at(seconds), "observed_generation": 1},
        ttl_seconds_after_finished=ttl,
    )


async def test_a_task_is_deleted_by_its_uid_when_its_time_is_over_and_not_before() -> None:
    kept = Kept("a")
    kept.finish(done("a", ttl=10))
    assert await kept.pass_to(at(9.9)) == []
    assert await kept.pass_to(at(10)) == ["a"]
    assert kept.kube.asked[-1].endswith("/namespaces/team-a/tasks/a")


async def test_the_default_holds_for_tasks_that_say_nothing() -> None:
    kept = Kept("a", "b", default=5)
    kept.finish(done("a"))
    kept.finish(done("b", ttl=100))
    assert await kept.pass_to(at(50)) == ["a"]


async def test_without_any_time_to_live_a_task_stays() -> None:
    kept = Kept("a")
    kept.finish(done("a"))
    assert await kept.pass_to(at(10**8)) == []


async def test_what_the_history_does_not_have_is_never_deleted() -> None:
    kept = Kept()
    kept.finish(done("a", ttl=0))
    assert await kept.pass_to(at(1)) == []
    kept.past.uids.add("a")
    assert await kept.pass_to(at(5)) == []
    assert await kept.pass_to(at(20)) == ["a"]


async def test_while_the_history_is_away_nothing_is_deleted() -> None:
    kept = Kept("a")
    kept.past.down = True
    kept.finish(done("a", ttl=0))
    assert await kept.pass_to(at(1)) == []
    kept.past.down = False
    assert await kept.pass_to(at(20)) == ["a"]


async def test_a_namespace_keeps_so_many_and_the_oldest_go_first() -> None:
    kept = Kept("a", "b", "c", "other", per_namespace=2)
    for number, uid in enumerate("abc"):
        kept.finish(done(uid, seconds=number))
    kept.finish(done("other", namespace="team-b"))
    assert await kept.pass_to(at(10)) == ["a"]


async def test_a_task_told_twice_counts_once() -> None:
    kept = Kept("a", "b", per_namespace=1)
    for _ in range(3):
        kept.finish(done("a"))
    assert await kept.pass_to(at(1)) == []


async def test_what_finished_while_the_operator_was_away_is_found_by_the_list() -> None:
    kept = Kept("a")
    kept.show(done("a", ttl=3))
    kept.kube.pages = [[make_object(done("a", ttl=3))]]
    await kept.observer.list()
    assert await kept.pass_to(at(3)) == ["a"]


async def test_an_open_task_is_no_business_of_retention() -> None:
    kept = Kept("a", default=0)
    kept.finish(make_task(uid="a", phase=Phase.RUNNING))
    assert await kept.pass_to(at(100)) == []


async def test_more_time_given_to_a_finished_task_counts() -> None:
    kept = Kept("a")
    kept.finish(done("a", ttl=10))
    kept.show(done("a", ttl=100))
    assert await kept.pass_to(at(99)) == []
    assert await kept.pass_to(at(100)) == ["a"]


async def test_less_time_given_to_a_finished_task_is_found_by_the_list() -> None:
    kept = Kept("a", default=1000)
    kept.finish(done("a"))
    kept.show(done("a", ttl=10))
    kept.kube.pages = [[make_object(done("a", ttl=10))]]
    await kept.observer.list()
    assert await kept.pass_to(at(10)) == ["a"]


async def test_a_task_that_is_to_stay_after_all_still_counts_in_its_namespace() -> None:
    kept = Kept("a", "b", per_namespace=1)
    kept.finish(done("a", ttl=10))
    kept.show(done("a"))
    assert await kept.pass_to(at(50)) == []
    kept.finish(done("b", seconds=60))
    assert await kept.pass_to(at(61)) == ["a"]


async def test_a_task_of_the_same_name_made_since_is_not_deleted() -> None:
    kept = Kept("a")
    kept.finish(done("a", ttl=10))
    kept.kube.objects["a"] = make_object(done("another", ttl=10))
    assert await kept.pass_to(at(20)) == []
    assert kept.retention._known == {}


async def test_a_change_between_reading_and_deleting_is_looked_at_again() -> None:
    kept = Kept("a")
    kept.finish(done("a", ttl=10))
    kept.kube.objects["a"] = Conflict("changed")
    assert await kept.pass_to(at(10)) == []
    kept.show(done("a", ttl=10))
    assert await kept.pass_to(at(20)) == ["a"]
    assert kept.kube.bodies[-1]["preconditions"] == {"uid": "a", "resourceVersion": "7"}


@pytest.mark.parametrize("per_namespace", [None, 1], ids=["its time is over", "its namespace keeps too many"])
async def test_what_its_owner_still_needs_stays_until_it_does_not(per_namespace: int | None) -> None:
    kept = Kept("a", "b", per_namespace=per_namespace)
    kept.needed = {"a"}
    kept.finish(done("a", ttl=None if per_namespace else 10))
    kept.finish(done("b", seconds=1))
    assert await kept.pass_to(at(20)) == []
    kept.needed.clear()
    assert await kept.pass_to(at(40)) == ["a"]


def surplus(task: Task) -> Expiry:
    assert task.status.completion_time is not None
    return Expiry(task.status.completion_time, task.namespace, task.name, task.uid)


@pytest.mark.parametrize("ttl", [None, 3600])
async def test_a_task_of_which_its_owner_has_too_many_goes_at_once_but_not_before_it_is_stored(ttl: int | None) -> None:
    kept = Kept()
    kept.finish(task := done("a", ttl=ttl))
    kept.retention.expire(surplus(task))
    assert await kept.pass_to(at(0)) == []
    kept.past.uids.add("a")
    assert await kept.pass_to(at(9)) == []
    assert await kept.pass_to(at(10)) == ["a"]
    assert "a" not in kept.retention.known()
