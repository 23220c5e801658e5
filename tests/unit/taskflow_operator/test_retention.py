from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_operator.retention import Retention
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
        self.kube = FakeKube()
        self.past = Past(*stored)
        self.retention = Retention(
            cast("Any", self.kube),
            self.past,
            default_seconds=default,
            per_namespace=per_namespace,
            now=lambda: self.now,
        )

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
    kept.retention.finished(done("a", ttl=10))
    assert await kept.pass_to(at(9.9)) == []
    assert await kept.pass_to(at(10)) == ["a"]
    assert kept.kube.asked[-1].endswith("/namespaces/team-a/tasks/a")


async def test_the_default_holds_for_tasks_that_say_nothing() -> None:
    kept = Kept("a", "b", default=5)
    kept.retention.finished(done("a"))
    kept.retention.finished(done("b", ttl=100))
    assert await kept.pass_to(at(50)) == ["a"]


async def test_without_any_time_to_live_a_task_stays() -> None:
    kept = Kept("a")
    kept.retention.finished(done("a"))
    assert await kept.pass_to(at(10**8)) == []


async def test_what_the_history_does_not_have_is_never_deleted() -> None:
    kept = Kept()
    kept.retention.finished(done("a", ttl=0))
    assert await kept.pass_to(at(1)) == []
    kept.past.uids.add("a")
    assert await kept.pass_to(at(5)) == []
    assert await kept.pass_to(at(20)) == ["a"]


async def test_while_the_history_is_away_nothing_is_deleted() -> None:
    kept = Kept("a")
    kept.past.down = True
    kept.retention.finished(done("a", ttl=0))
    assert await kept.pass_to(at(1)) == []
    kept.past.down = False
    assert await kept.pass_to(at(20)) == ["a"]


async def test_a_namespace_keeps_so_many_and_the_oldest_go_first() -> None:
    kept = Kept("a", "b", "c", "other", per_namespace=2)
    for number, uid in enumerate("abc"):
        kept.retention.finished(done(uid, seconds=number))
    kept.retention.finished(done("other", namespace="team-b"))
    assert await kept.pass_to(at(10)) == ["a"]


async def test_a_task_told_twice_counts_once() -> None:
    kept = Kept("a", "b", per_namespace=1)
    for _ in range(3):
        kept.retention.finished(done("a"))
    assert await kept.pass_to(at(1)) == []


async def test_what_finished_while_the_operator_was_away_is_found_by_the_list() -> None:
    kept = Kept("a")
    kept.kube.pages = [[make_object(done("a", ttl=3))]]
    await kept.retention._list()
    assert await kept.pass_to(at(3)) == ["a"]


async def test_an_open_task_is_no_business_of_retention() -> None:
    kept = Kept("a", default=0)
    kept.retention.finished(make_task(uid="a", phase=Phase.RUNNING))
    assert await kept.pass_to(at(100)) == []


async def test_a_finished_task_whose_specification_changed_is_observed_again() -> None:
    kept = Kept()
    changed = make_task(
        uid="a",
        name="a",
        generation=2,
        phase=Phase.SUCCEEDED,
        status={
            "completion_time": NOW,
            "observed_generation": 1,
            "conditions": [
                {"type": "Finished", "status": "True", "reason": "R", "message": "", "last_transition_time": NOW}
            ],
        },
    )
    seen = make_task(uid="b", name="b", phase=Phase.SUCCEEDED, status={"observed_generation": 1})
    kept.kube.pages = [[make_object(changed), make_object(seen)]]
    await kept.retention._list()
    assert kept.kube.asked[-1].endswith("/namespaces/team-a/tasks/a/status")
    assert kept.kube.bodies == [
        [
            {"op": "test", "path": "/metadata/uid", "value": "a"},
            {"op": "add", "path": "/status/observedGeneration", "value": 2},
            {"op": "add", "path": "/status/conditions/0/observedGeneration", "value": 2},
        ]
    ]
