from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_operator.tasks.finished_observer import FinishedObserver
from taskflow_operator.tasks.retention import Retention
from tests.builders import NOW, make_object, make_task
from tests.unit.taskflow_operator.fakes import FakeKube, at, eventually


class Stored:
    async def stored(self, uids: Sequence[str]) -> set[str]:
        return set(uids)


class Site:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.kube.objects["status"] = {}
        self.retention = Retention(cast("Any", self.kube), Stored(), default_seconds=None, per_namespace=None)
        self.observer = FinishedObserver(cast("Any", self.kube), self.retention)

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        job = asyncio.create_task(self.observer.run())
        yield
        job.cancel()
        await asyncio.wait([job])

    @property
    def written(self) -> list[tuple[str, int]]:
        """Uid and generation of each write."""
        return [(patch[0]["value"], patch[1]["value"]) for patch in self.kube.bodies]


def finished(uid: str = "a", *, generation: int = 2, observed: int = 1, ttl: int | None = None) -> Task:
    conditions = [{"type": "Finished", "status": "True", "reason": "R", "message": "", "last_transition_time": NOW}]
    return make_task(
        uid=uid,
        name=uid,
        generation=generation,
        phase=Phase.SUCCEEDED,
        status={"completion_time": NOW, "observed_generation": observed, "conditions": conditions},
        ttl_seconds_after_finished=ttl,
    )


async def test_a_change_after_the_end_is_observed_on_the_object_and_on_each_condition() -> None:
    site = Site()
    async with site.runs():
        site.observer.observe(make_object(finished()))
        await eventually(lambda: site.kube.bodies)
    assert site.kube.asked == ["/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/a/status"]
    assert site.kube.bodies == [
        [
            {"op": "test", "path": "/metadata/uid", "value": "a"},
            {"op": "add", "path": "/status/observedGeneration", "value": 2},
            {"op": "add", "path": "/status/conditions/0/observedGeneration", "value": 2},
        ]
    ]


async def test_a_task_without_a_change_costs_no_request() -> None:
    site = Site()
    async with site.runs():
        site.observer.observe(make_object(finished("quiet", generation=1)))
        site.observer.observe(make_object(finished("late")))
        await eventually(lambda: site.kube.bodies)
    assert site.written == [("late", 2)]


async def test_a_change_that_an_operator_missed_is_found_by_the_list() -> None:
    site = Site()
    site.kube.pages = [[make_object(finished("late")), make_object(finished("quiet", generation=1))]]
    async with site.runs():
        assert await site.observer.list() == "9"
        await eventually(lambda: site.kube.bodies)
    assert site.written == [("late", 2)]


async def test_while_the_api_server_is_away_the_newest_generation_is_kept() -> None:
    site = Site()
    site.kube.objects["status"] = Unavailable("API server: down")
    async with site.runs():
        site.observer.observe(make_object(finished()))
        await eventually(lambda: site.written == [("a", 2)])
        site.observer.observe(make_object(finished(generation=3)))
        site.kube.objects["status"] = {}
        await eventually(lambda: len(site.written) > 1)
        await eventually(lambda: not site.observer._behind)
    assert site.written == [("a", 2), ("a", 3)]


async def test_another_time_to_live_counts_at_once_and_a_deleted_task_no_more() -> None:
    site = Site()
    site.retention.finished(finished(observed=2))
    site.observer.observe(make_object(finished(generation=3, ttl=5, observed=2)))
    assert site.retention._times == {"a": at(5)}
    assert list(site.retention.known()) == ["a"]
    site.observer.observe(make_object(finished(generation=3, ttl=5, observed=2)), gone=True)
    assert list(site.retention.known()) == []
