from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from taskflow_core.domain.attempts import AttemptKey, State
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.errors import Unavailable
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.recovery import Recovery
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.builders import make_task
from tests.unit.taskflow_operator.fakes import FakeArrays, FakeClock


class Forgotten:
    """A ledger after lost data: one attempt was entered again by its worker."""

    def __init__(self, held: str = "held") -> None:
        self.held = held
        self.given_up: list[AttemptKey] = []
        self.reasons: set[Reason] = set()
        self.asked: list[AttemptKey] = []
        self.down = 0

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        if self.down:
            self.down -= 1
            raise Unavailable("Redis: down")
        self.asked += attempts
        return [State("", leased=each.uid == self.held, waiting=False) for each in attempts]

    async def give_up(self, attempts: Sequence[AttemptKey], failure: Failure) -> list[bool]:
        self.given_up += attempts
        self.reasons.add(failure.reason)
        return [True for _ in attempts]


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks, self.work_queue, self.ledger, self.clock = OpenTasks(), WorkQueue(), Forgotten(), FakeClock()
        self.arrays = FakeArrays(self.tasks)
        self.recovery = Recovery(
            self.tasks,
            cast("Any", self.ledger),
            self.work_queue,
            self.arrays,
            lease_seconds=15,
            clock=self.clock,
        )
        self.slept: list[float] = []
        self.held: list[set[str]] = []
        self.read: dict[str, float] = {}
        self.again: list[str] = []
        monkeypatch.setattr("taskflow_operator.tasks.recovery.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.held.append({known.task.uid for known in self.tasks if known.held})

    def add(self, uid: str, phase: Phase = Phase.RUNNING, namespace: str = "team-a", **fields: Any) -> None:
        assert self.tasks.add(make_task(uid=uid, name=uid, phase=phase, namespace=namespace, **fields))

    async def recovered(self) -> None:
        await asyncio.gather(*self.recovery._background._tasks)

    async def check(self) -> None:
        await self.recovery.check_running(lambda name: self.read.get(name, 0.0), self.again.append)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def key(uid: str, namespace: str = "team-a") -> AttemptKey:
    return AttemptKey(namespace, uid, 1)


async def test_after_half_a_lease_what_waited_is_entered_again_and_what_nobody_holds_is_given_up_in_one_call(
    world: World,
) -> None:
    for uid, phase in (("waits", Phase.QUEUED), ("held", Phase.RUNNING), ("adrift", Phase.RUNNING)):
        world.add(uid, phase)
    world.recovery.data_lost(["team-a"])
    await world.recovered()
    assert world.slept == [7.5]
    assert world.held == [{"waits", "held", "adrift"}]
    assert not any(known.held for known in world.tasks)
    assert world.ledger.given_up == [key("adrift")]
    assert world.ledger.reasons == {Reason.BROKER_DATA_LOST}
    assert set(await world.work_queue.take(10)) == {"waits", "held", "adrift"}


async def test_tasks_of_other_namespaces_are_not_held_and_nothing_of_them_is_given_up(world: World) -> None:
    world.add("a")
    world.add("b", namespace="team-b")
    world.recovery.data_lost(["team-a"])
    await world.recovered()
    assert world.held == [{"a"}]
    assert world.ledger.asked == world.ledger.given_up == [key("a")]
    assert await world.work_queue.take(10) == ["a"]
    assert world.arrays.lost == [(7.5, {"team-a"})]


async def test_only_the_namespaces_that_lost_data_have_a_grace(world: World) -> None:
    assert not world.recovery.grace("team-a")
    world.recovery.data_lost(["team-a"])
    assert (world.recovery.grace("team-a"), world.recovery.grace("team-b")) == (True, False)
    world.clock.now += 7
    world.recovery.data_lost(["team-b"])
    world.clock.now += 0.5
    assert (world.recovery.grace("team-a"), world.recovery.grace("team-b")) == (False, True)
    assert not world.recovery._background._tasks


async def test_after_an_outage_all_namespaces_have_a_grace_of_one_lease(world: World) -> None:
    world.recovery.outage_over()
    world.clock.now += 14.5
    assert world.recovery.grace("team-a")
    assert world.recovery.grace("team-b")
    world.clock.now += 0.5
    assert not world.recovery.grace("team-a")


async def test_what_ended_or_went_on_meanwhile_is_not_given_up(world: World) -> None:
    for uid in ("ended", "next", "closing"):
        world.add(uid)
    world.add("array", array={"count": 5})
    world.recovery.data_lost(["team-a"])
    world.tasks.close("ended", 0.0)
    known = world.tasks.get("next")
    assert known is not None
    world.tasks.set_status("next", known.task.status.model_copy(update={"attempt": 2}))
    with world.tasks.closing("closing"):
        await world.recovered()
    assert world.ledger.given_up == []
    assert set(await world.work_queue.take(10)) == {"next", "closing", "array"}


async def test_stock_is_taken_when_redis_answers_again(world: World) -> None:
    world.add("adrift")
    world.ledger.down = 3
    world.recovery.data_lost(["team-a"])
    await world.recovered()
    assert world.slept == [7.5, 1.0, 1.0, 1.0]
    assert world.ledger.given_up == [key("adrift")]


async def test_an_attempt_is_adrift_only_when_all_that_the_stream_held_at_the_first_look_was_read(
    world: World,
) -> None:
    world.add("a")
    world.add("held")
    for _ in range(3):
        # Its end may be in what the reader has not come to.
        await world.check()
        world.clock.now += 60
    assert world.ledger.given_up == []
    assert world.again == ["team-a"] * 3
    world.read["team-a"] = world.clock.now
    await world.check()
    assert world.ledger.given_up == [key("a")]


async def test_the_streams_of_other_namespaces_say_nothing_of_an_attempt(world: World) -> None:
    world.add("a")
    world.add("b", namespace="team-b")
    await world.check()
    world.clock.now += 60
    world.read["team-b"] = world.clock.now
    await world.check()
    assert world.ledger.given_up == [key("b", "team-b")]


async def test_an_attempt_that_is_held_again_is_not_given_up(world: World) -> None:
    world.add("a")
    await world.check()
    world.clock.now += 60
    world.read["team-a"] = world.clock.now
    world.ledger.held = "a"
    await world.check()
    world.ledger.held = ""
    world.clock.now += 60
    world.read["team-a"] = world.clock.now
    await world.check()
    assert world.ledger.given_up == [], "it counts from the latest first look"


async def test_nobody_is_looked_at_while_the_namespace_recovers(world: World) -> None:
    world.add("a", Phase.PENDING)
    world.add("b", namespace="team-b")
    world.recovery.data_lost(["team-a"])
    known = world.tasks.get("a")
    assert known is not None
    world.tasks.set_status("a", known.task.status.model_copy(update={"phase": Phase.RUNNING}))
    await world.check()
    assert world.ledger.asked == [key("b", "team-b")]
    await world.recovered()


async def test_a_check_that_gets_no_answer_concludes_nothing(world: World) -> None:
    world.add("a")
    world.ledger.down = 1
    await world.check()
    world.clock.now += 60
    world.read["team-a"] = world.clock.now
    await world.check()
    assert (world.ledger.given_up, world.again) == ([], ["team-a"])
