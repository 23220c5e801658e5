"""The keeper of Jobs over a cluster and a ledger in memory, look by look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from taskflow_core.domain.attempts import AttemptKey, State
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import Page
from taskflow_operator.isolated.controller import ASK_SECONDS, SLACK_SECONDS, JobController
from taskflow_operator.isolated.jobs import POD_SECONDS, RETRY_SECONDS
from taskflow_operator.isolated.launcher import WAITING_MESSAGE, JobLauncher
from taskflow_operator.tasks.open_tasks import OpenTasks
from tests.builders import NOW, TOKEN_KEY, UID, make_task
from tests.unit.taskflow_operator.fakes import FakeClock

LEASE = 15.0
WAITING, LEASED, NOBODY = State("", False, True), State("w", True, False), State("settled", False, False)


@dataclass
class Cluster:
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    failures: list[TaskflowError] = field(default_factory=list)
    deleted: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def request(self, method: str, path: str, body: Any = None, *, params: Any = None) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop(0)
        name = path.rpartition("/")[2]
        if method == "POST":
            if body["metadata"]["name"] in self.jobs:
                raise Conflict("it exists")
            made = {"uid": f"j{len(self.jobs)}", "creationTimestamp": NOW.isoformat()}
            self.jobs[body["metadata"]["name"]] = {**body, "metadata": {**body["metadata"], **made}}
            return {}
        if method == "DELETE":
            if name not in self.jobs:
                raise NotFound(name)
            del self.jobs[name]
            self.deleted.append(body)
            return {}
        if path == "/apis/events.k8s.io/v1/namespaces/team-a/events":
            self.asked.append(params["fieldSelector"])
            return {"items": self.events}
        return {"items": self.pods}

    async def list_pages(self, path: str, *, label_selector: str) -> AsyncIterator[Page]:
        if self.failures:
            raise self.failures.pop(0)
        yield Page(list(self.jobs.values()), "1")


@dataclass
class Ledger:
    state: State = WAITING
    left: list[Message] = field(default_factory=list)

    async def leave(self, message: Message) -> None:
        self.left.append(message)

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        return [self.state for _ in attempts]


class World:
    def __init__(self) -> None:
        self.tasks, self.cluster, self.ledger, self.clock = OpenTasks(), Cluster(), Ledger(), FakeClock()
        self.task = make_task(phase=Phase.QUEUED, isolation="Pod")
        self.tasks.add(self.task)
        self.again: list[str] = []
        self.shown: list[str] = []
        self.closed: str | None = None
        self.now = NOW
        self.launcher = JobLauncher(
            cast("Any", self.cluster),
            self.ledger,
            self._template,
            token_key=TOKEN_KEY,
            changed=self.shown.append,
            clock=self.clock,
        )
        self.keeper = JobController(
            self.tasks,
            cast("Any", self.cluster),
            cast("Any", self.ledger),
            self.launcher,
            self._again,
            lease_seconds=LEASE,
            now=lambda: self.now,
            clock=self.clock,
        )

    def _template(self, namespace: str, queue: str) -> dict[str, Any]:
        assert (namespace, queue) == ("team-a", "default")
        if self.closed:
            raise Invalid(self.closed)
        return {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "worker", "env": []}]}}

    async def _again(self, tasks: Sequence[Task]) -> None:
        self.again += [task.uid for task in tasks]

    async def launch(self) -> None:
        message = Message(
            uid=UID, namespace="team-a", name="report", attempt=1, token="t", handler="h", queue="default"
        )
        await self.launcher.launch(self.task, message)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.clock.now += seconds

    def end_job(self) -> None:
        (body,) = self.cluster.jobs.values()
        body["status"] = {
            "conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": self.now.isoformat()}]
        }


@pytest.fixture
def world() -> World:
    return World()


async def test_the_message_is_left_before_the_job_is_made(world: World) -> None:
    world.cluster.failures = [Unavailable("API server: down")]
    await world.launch()
    assert (len(world.ledger.left), world.cluster.jobs) == (1, {})
    await world.launch()
    await world.launch()
    assert len(world.cluster.jobs) == 1


async def test_an_attempt_without_a_job_is_entered_again(world: World) -> None:
    await world.keeper.look()
    assert world.again == [UID]
    await world.launch()
    await world.keeper.look()
    assert world.again == [UID]


@pytest.mark.parametrize("change", [{"phase": Phase.RUNNING}, {"phase": Phase.PENDING}])
async def test_only_what_is_queued_misses_its_job(world: World, change: dict[str, Any]) -> None:
    world.tasks.set_status(UID, world.task.status.model_copy(update=change))
    await world.keeper.look()
    assert world.again == []


async def test_a_task_that_is_held_or_closing_misses_no_job(world: World) -> None:
    known = world.tasks.get(UID)
    assert known is not None
    world.tasks.hold(UID)
    await world.keeper.look()
    world.tasks.release(UID)
    with world.tasks.closing(UID):
        await world.keeper.look()
    assert world.again == []


async def test_while_no_pool_takes_anything_that_is_told_and_nothing_made(world: World) -> None:
    world.closed = "WorkerPool 'main' is paused"
    await world.keeper.look()
    assert (world.launcher.waiting_message(world.task), world.again, world.shown) == (world.closed, [], [UID])
    world.closed = None
    await world.keeper.look()
    assert (world.launcher.waiting_message(world.task), world.again) == (WAITING_MESSAGE, [UID])


async def test_a_refused_job_is_told_and_tried_again_later(world: World) -> None:
    world.cluster.failures = [Forbidden("exceeded quota")]
    await world.launch()
    assert world.launcher.waiting_message(world.task) == "exceeded quota"
    await world.keeper.look()
    assert world.again == []
    world.pass_time(RETRY_SECONDS)
    await world.keeper.look()
    assert world.again == [UID]


async def test_a_pod_that_cannot_start_is_told(world: World) -> None:
    await world.launch()
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    world.cluster.pods = [
        {
            "metadata": {
                "name": "p",
                "uid": "p",
                "creationTimestamp": NOW.isoformat(),
                "ownerReferences": [{"uid": "j0"}],
            },
            "status": {"containerStatuses": [{"state": {"waiting": waiting}}]},
        }
    ]
    world.pass_time(5)
    await world.keeper.look()
    assert world.launcher.waiting_message(world.task) == "pod p: ImagePullBackOff: no such image"
    assert len(world.cluster.jobs) == 1


async def test_a_pod_that_a_quota_refuses_is_told_and_asked_for_from_time_to_time(world: World) -> None:
    await world.launch()
    note = 'Error creating: pods "report-1-{}" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2'
    world.cluster.events = [
        {"note": note.format("x"), "deprecatedLastTimestamp": "2026-01-01T00:00:02Z"},
        {"note": "Error creating: something else", "eventTime": "2026-01-01T00:00:01.000000Z"},
    ]
    world.pass_time(POD_SECONDS + 1)
    await world.keeper.look()
    (job,) = world.cluster.jobs
    told = f"Job {job} has no pod: its pod is forbidden: exceeded quota: few, requested: pods=1, used: pods=2"
    assert world.launcher.waiting_message(world.task) == told
    world.cluster.events[0] = {**world.cluster.events[0], "note": note.format("y")}
    world.pass_time(ASK_SECONDS - 1)
    await world.keeper.look()
    assert world.cluster.asked == ["regarding.uid=j0,reason=FailedCreate"]
    world.pass_time(1)
    await world.keeper.look()
    assert len(world.cluster.asked) == 2
    assert world.shown == [UID], "the name of the pod is no news"


async def test_a_job_that_ended_without_its_attempt_is_replaced_after_a_while(world: World) -> None:
    await world.launch()
    world.end_job()
    await world.keeper.look()
    assert world.cluster.deleted == []
    world.pass_time(RETRY_SECONDS + 1)
    await world.keeper.look()
    (options,) = world.cluster.deleted
    assert (options["propagationPolicy"], options["preconditions"]) == ("Background", {"uid": "j0"})
    await world.keeper.look()
    assert world.again == [UID]


async def test_a_job_whose_attempt_nobody_holds_is_deleted_after_more_than_a_lease(world: World) -> None:
    await world.launch()
    world.tasks.close(UID, 0.0)
    world.ledger.state = NOBODY
    await world.keeper.look()
    world.pass_time(LEASE + SLACK_SECONDS)
    await world.keeper.look()
    assert world.cluster.deleted == []
    world.pass_time(1)
    await world.keeper.look()
    assert len(world.cluster.deleted) == 1


async def test_a_job_whose_attempt_is_held_again_meanwhile_stays(world: World) -> None:
    await world.launch()
    for state in (NOBODY, LEASED, NOBODY):
        world.ledger.state = state
        await world.keeper.look()
        world.pass_time(LEASE)
    await world.keeper.look()
    assert world.cluster.deleted == []


async def test_a_job_that_ended_in_order_is_left_to_its_time_to_live(world: World) -> None:
    await world.launch()
    world.end_job()
    world.ledger.state = NOBODY
    for _ in range(3):
        await world.keeper.look()
        world.pass_time(LEASE + SLACK_SECONDS)
    assert world.cluster.deleted == []


async def test_without_isolated_tasks_nobody_is_asked(world: World) -> None:
    world.tasks.close(UID, 0.0)
    await world.keeper.look()
    world.cluster.failures = [Unavailable("asked")]
    await world.keeper.look()
    assert world.cluster.failures


async def test_a_job_that_is_no_job_of_ours_does_not_stop_the_look(world: World) -> None:
    world.cluster.jobs["odd"] = {"metadata": {"name": "odd", "labels": {}}}
    await world.keeper.look()
    assert world.again == [UID]
