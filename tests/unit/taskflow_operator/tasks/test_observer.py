from __future__ import annotations

from typing import Any, cast

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, NotFound, TaskflowError, Unavailable
from taskflow_operator.tasks.observer import Observer
from tests.builders import UID, make_object, make_task
from tests.unit.taskflow_operator.fakes import FakeKube, eventually
from tests.unit.taskflow_operator.parts import Parts


class Seen:
    def __init__(self) -> None:
        self.parts = Parts()
        self.kube = FakeKube()
        self.woken: list[str] = []
        self.requeued: list[Task] = []
        self.observer = Observer(
            self.parts.tasks,
            self.parts.writer,
            self.parts.closer,
            cast("Any", self.kube),
            dispatch=self.woken.append,
            requeue=self.requeued.append,
        )

    async def checked(self) -> None:
        await eventually(lambda: not self.observer._checks)


async def test_a_new_task_is_taken_and_looked_at_once() -> None:
    seen = Seen()
    for _ in range(3):
        seen.observer.observe(make_object(make_task()))
    assert seen.woken == [UID]
    assert len(seen.parts.tasks) == 1


async def test_a_finished_task_needs_nothing() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task(phase=Phase.SUCCEEDED)))
    assert (seen.woken, len(seen.parts.tasks)) == ([], 0)


async def test_an_object_that_cannot_be_read_disturbs_no_other() -> None:
    seen = Seen()
    broken = make_object(make_task(uid="other"))
    broken["metadata"]["creationTimestamp"] = "yesterday"
    seen.observer.observe(broken)
    seen.observer.observe(make_object(make_task()))
    assert seen.woken == [UID]


async def test_a_task_whose_specification_cannot_be_read_is_taken_to_be_ended() -> None:
    seen = Seen()
    body = make_object(make_task())
    body["spec"]["notBefore"] = "9999-12-31T23:59:59-01:00"
    seen.observer.observe(body)
    assert seen.woken == [UID]
    known = seen.parts.tasks.get(UID)
    assert known is not None
    assert "notBefore: " in known.task.unreadable
    body["metadata"]["generation"] = 2
    body["spec"]["cancel"] = True
    seen.observer.observe(body)
    assert known.task.spec.cancel
    assert "notBefore: " in known.task.unreadable


@pytest.mark.parametrize("generation", [1, 2], ids=["same generation", "next generation"])
@pytest.mark.parametrize("known", [True, False], ids=["known before", "new"])
async def test_a_task_whose_deletion_was_asked_for_is_looked_at_and_marked(generation: int, known: bool) -> None:
    seen = Seen()
    body = make_object(make_task(phase=Phase.RUNNING))
    if known:
        seen.observer.observe(body)
    body["metadata"] |= {"generation": generation, "deletionTimestamp": "2026-03-01T12:00:00Z"}
    seen.observer.observe(body)
    seen.observer.observe(body)
    found = seen.parts.tasks.get(UID)
    assert found is not None
    assert (found.task.deleting, found.task.cancelled, found.task.spec.cancel) == (True, True, False)
    assert seen.woken == [UID] * (2 if known else 1)


async def test_what_the_watch_shows_of_a_known_task_does_not_replace_what_we_know() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task(phase=Phase.RUNNING)))
    seen.observer.observe(make_object(make_task(phase=Phase.QUEUED)))
    assert seen.parts.status(UID).phase is Phase.RUNNING


async def test_a_task_that_left_and_is_gone_is_withdrawn() -> None:
    seen = Seen()
    task = make_task(phase=Phase.QUEUED)
    seen.observer.observe(make_object(task))
    seen.observer.observe(make_object(task), gone=True)
    await seen.checked()
    assert seen.parts.journal == ["deleted 1"]
    assert seen.parts.tasks.get(UID) is None


async def test_a_name_that_belongs_to_another_task_now_means_gone() -> None:
    seen = Seen()
    task = make_task(phase=Phase.QUEUED)
    seen.observer.observe(make_object(task))
    seen.kube.objects["report"] = make_object(make_task(uid="other"))
    seen.observer.observe(make_object(task), gone=True)
    await seen.checked()
    assert seen.parts.journal == ["deleted 1"]


@pytest.mark.parametrize("error", [Unavailable("down"), Conflict("x")])
async def test_without_an_answer_nothing_is_withdrawn(error: TaskflowError) -> None:
    seen = Seen()
    task = make_task(phase=Phase.QUEUED)
    seen.observer.observe(make_object(task))
    seen.kube.objects["report"] = error
    seen.observer.observe(make_object(task), gone=True)
    await seen.checked()
    assert seen.parts.journal == []
    assert seen.parts.tasks.get(UID) is not None


async def test_a_task_that_still_exists_stays() -> None:
    seen = Seen()
    task = make_task(phase=Phase.QUEUED)
    seen.observer.observe(make_object(task))
    seen.kube.objects["report"] = make_object(task)
    seen.observer.observe(make_object(task), gone=True)
    await seen.checked()
    assert seen.parts.tasks.get(UID) is not None


async def test_a_task_that_left_because_we_closed_it_is_not_asked_for() -> None:
    seen = Seen()
    task = make_task(phase=Phase.QUEUED)
    seen.observer.observe(make_object(task))
    known = seen.parts.tasks.get(UID)
    assert known is not None
    known.closing = True
    seen.observer.observe(make_object(task), gone=True)
    seen.observer.observe(make_object(make_task(uid="never seen")), gone=True)
    assert seen.kube.asked == []


async def test_a_list_brings_what_the_watch_missed_and_finds_what_is_gone() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task(uid="stays", name="stays")))
    seen.observer.observe(make_object(make_task(uid="leaves", name="leaves")))
    seen.kube.pages = [
        [make_object(make_task(uid="stays", name="stays"))],
        [make_object(make_task(uid="comes", name="comes"))],
    ]
    await seen.observer.list()
    assert {known.task.uid for known in seen.parts.tasks} == {"stays", "comes"}
    assert seen.kube.asked == ["/apis/taskflow.dev/v1alpha1/namespaces/team-a/tasks/leaves"]
    assert seen.parts.journal == ["deleted 1"]


async def test_a_list_that_broke_off_concludes_nothing_from_absences() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task()))
    seen.kube.pages = [[], Conflict("expired")]
    with pytest.raises(Conflict):
        await seen.observer.list()
    assert len(seen.parts.tasks) == 1
    assert seen.kube.asked == []


async def test_a_missing_answer_during_a_list_is_not_a_missing_task() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task()))
    seen.kube.objects["report"] = Unavailable("down")
    await seen.observer.list()
    assert len(seen.parts.tasks) == 1
    seen.kube.objects["report"] = NotFound("gone")
    await seen.observer.list()
    assert len(seen.parts.tasks) == 0


async def test_a_changed_specification_is_taken_and_the_status_stays_ours() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task(phase=Phase.QUEUED)))
    seen.observer.observe(make_object(make_task(phase=Phase.PENDING, generation=2, suspend=True)))
    known = seen.parts.tasks.get(UID)
    assert known is not None
    assert (known.task.spec.suspend, known.task.generation, known.task.status.phase) == (True, 2, Phase.QUEUED)
    assert seen.woken == [UID, UID]
    assert seen.requeued == []


@pytest.mark.parametrize(("phase", "requeued"), [(Phase.QUEUED, 1), (Phase.PENDING, 0), (Phase.RUNNING, 0)])
async def test_a_new_priority_sends_again_what_is_queued(phase: Phase, requeued: int) -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task(phase=phase)))
    seen.observer.observe(make_object(make_task(phase=phase, generation=2, priority=9)))
    assert [task.spec.priority for task in seen.requeued] == [9] * requeued


async def test_a_task_that_appears_wakes_those_that_wait_for_it() -> None:
    seen = Seen()
    seen.observer.observe(make_object(make_task(uid="second", name="second", depends_on=[{"name": "first"}])))
    seen.observer.observe(make_object(make_task(uid="first", name="first")))
    assert seen.woken == ["second", "second", "first"]
