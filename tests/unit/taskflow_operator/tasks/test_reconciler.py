from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pytest

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import AttemptKey, State, Survey
from taskflow_core.domain.events import Failure
from taskflow_core.domain.message import HEADER_ENTERED
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Unavailable
from taskflow_operator.tasks.lost_workers import LostWorkers
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import Death
from taskflow_operator.tasks.reconciler import (
    ALL_TICKS,
    AT_ONCE,
    MIN_SCAN,
    SCAN,
    Reconciler,
)
from taskflow_operator.tasks.recovery import Recovery
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.builders import make_task
from tests.unit.taskflow_operator.fakes import FakeArrays


def raw(entered: int) -> str:
    return json.dumps({"body": "", "headers": {HEADER_ENTERED: entered}})


class Ledger:
    """One that may take no writes, and tells what each namespace has in flight."""

    def __init__(self) -> None:
        self.full = False
        self.operator = "ns/lease"
        self.begun = 0
        self.new = False
        self.surveys: dict[str, Survey] = {}
        self.asked: list[dict[str, int]] = []
        self.limits: list[int] = []
        self.expired: list[AttemptKey] = []
        self.failures: dict[AttemptKey, Failure] = {}
        self.claims: dict[AttemptKey, str] = {}
        self.nobodys: list[tuple[str, str]] = []
        self.heads: dict[str, str] = {}

    async def serve(self, operator: str) -> str:
        return self.operator or operator

    async def begin_epoch(self, epoch: str) -> bool:
        if self.full:
            raise Unavailable("Redis: command not allowed when used memory > 'maxmemory'")
        self.begun += 1
        return self.new

    async def survey(self, namespaces: Mapping[str, int], *, grace_ms: int, limit: int) -> list[Survey]:
        self.asked.append(dict(namespaces))
        self.limits.append(limit)
        return [self.surveys.get(name, Survey(name)) for name in namespaces]

    async def expire(
        self,
        expired: Sequence[AttemptKey],
        nobodys: Sequence[tuple[str, str]] = (),
        *,
        failures: Mapping[AttemptKey, Failure],
    ) -> list[AttemptKey]:
        self.expired += expired
        self.failures |= failures
        self.nobodys += nobodys
        return list(expired)

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        return [State(self.claims.get(key, ""), leased=True, waiting=False) for key in attempts]

    async def oldest_messages(self, lists: Sequence[str]) -> list[str | None]:
        return [self.heads.get(name) for name in lists]


class Registry:
    """Namespaces that have keys."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.loaded = 0
        self.lost: list[set[str]] = []
        self.failing = False

    async def load(self) -> None:
        self.loaded += 1

    async def ensure(self, names: Iterable[str]) -> None:
        self.known |= set(names)

    async def data_lost(self, names: Iterable[str]) -> None:
        if self.failing:
            raise Unavailable("Redis: down")
        self.lost.append({*self.known, *names})


class Sent:
    """What is sent again."""

    def __init__(self) -> None:
        self.uids: list[str] = []

    async def republish_all(self, tasks: Sequence[Task]) -> None:
        self.uids += [task.uid for task in tasks]


class Deaths:
    """The worker of the pod `dead` died."""

    def death(self, namespace: str, pod: str) -> Death | None:
        return Death(Reason.EVICTED, f"pod {pod} was evicted") if pod == "dead" else None


class World:
    """A reconciler over a ledger in memory, with what its test is about and nothing else."""

    def __init__(self, *namespaces: str, ledger: object = None, observer: object = None) -> None:
        self.now = 100.0
        self.tasks, self.work_queue = OpenTasks(), WorkQueue()
        self.ledger, self.registry, self.sent = Ledger(), Registry(*namespaces), Sent()
        self.arrays = FakeArrays(self.tasks)
        for name in namespaces:
            self.add(f"uid-of-{name}", name)
        recovery = Recovery(
            self.tasks,
            cast("Any", ledger or self.ledger),
            self.work_queue,
            self.arrays,
            lease_seconds=15,
            clock=lambda: self.now,
        )
        self.recovery = recovery
        self.reconciler = Reconciler(
            self.tasks,
            cast("Any", ledger or self.ledger),
            self.work_queue,
            cast("Any", self.sent),
            self.arrays,
            cast("Any", observer),
            recovery,
            LostWorkers(self.tasks, cast("Any", ledger or self.ledger), Deaths(), lease_seconds=15),
            lease_name="ns/lease",
            namespaces=cast("Any", self.registry),
            resync_seconds=60,
            caught_up=lambda _: self.now,
            read_again=lambda _: None,
            clock=lambda: self.now,
        )

    def add(self, uid: str, namespace: str, phase: Phase = Phase.QUEUED, **fields: Any) -> Task:
        task = make_task(uid=uid, name=uid, namespace=namespace, phase=phase, **fields)
        assert self.tasks.add(task)
        return task

    async def end(self) -> None:
        """Leave what recovers."""
        jobs = list(self.recovery._background._tasks)
        await asyncio.sleep(0)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def find(self, namespace: str, **fields: Any) -> None:
        """What the next survey finds in a namespace."""
        self.ledger.surveys[namespace] = Survey(namespace, **fields)


async def test_the_redis_of_another_operator_is_left_alone() -> None:
    world = World()
    world.ledger.operator = "ns/other"
    with pytest.raises(
        Conflict, match="the operator of Lease ns/other works with this Redis, and this one has Lease ns/lease"
    ):
        await world.reconciler.start()
    assert (world.ledger.begun, world.registry.loaded) == (0, 0)
    world.ledger.operator = "ns/lease"
    await world.reconciler.start()
    assert (world.ledger.begun, world.registry.loaded) == (1, 1)


async def test_a_redis_that_lost_everything_is_told_to_all_namespaces() -> None:
    world = World("a")
    world.add("x", "not-known-before")
    await world.reconciler.start()
    assert world.registry.lost == []
    assert world.registry.known == {"a", "not-known-before"}
    world.ledger.new = world.registry.failing = True
    with pytest.raises(Unavailable):
        await world.reconciler._tick()
    # The epoch has a name by now, and still nobody was told.
    world.ledger.new = world.registry.failing = False
    await world.reconciler._tick()
    await world.reconciler._tick()
    assert world.registry.lost == [{"a", "not-known-before"}]


async def test_after_an_outage_workers_have_one_lease_to_renew_before_any_is_declared_lost() -> None:
    world = World("a", "b")
    await world.reconciler._tick()
    assert world.ledger.asked == [{"a": 0, "b": 0}]
    world.ledger.full = True
    for _ in range(30):
        world.now += 1
        with pytest.raises(Unavailable):
            await world.reconciler._tick()
    world.ledger.full = False
    for _ in range(15):
        world.now += 1
        await world.reconciler._tick()
    assert all(not asked for asked in world.ledger.asked[1:])
    world.now += 1
    await world.reconciler._tick()
    assert world.ledger.asked[-1] == {"a": 0, "b": 0}


async def test_a_namespace_that_lost_data_is_left_alone_and_no_other() -> None:
    world = World("a", "b")
    world.recovery.data_lost(["a"])
    await world.reconciler._tick()
    assert world.ledger.asked == [{"b": 0}]
    for _ in range(3):
        world.now += 2.5
        await world.reconciler._tick()
    assert world.ledger.asked == [{"b": 0}] * 3 + [{"a": 0, "b": 0}]
    await world.end()


async def test_what_is_left_of_namespaces_without_open_tasks_is_looked_at_less_often() -> None:
    world = World("a")
    world.registry.known |= {"idle"}
    for _ in range(ALL_TICKS + 1):
        await world.reconciler._tick()
    asked = [set(each) for each in world.ledger.asked]
    assert asked == [{"a", "idle"}, *[{"a"}] * (ALL_TICKS - 1), {"a", "idle"}]


async def test_the_message_of_another_namespaces_task_is_not_sent_again() -> None:
    world = World("a", "b")
    world.find("a", waiting=((AttemptKey("a", "uid-of-b", 1), 10), (AttemptKey("a", "uid-of-a", 1), 20)))
    await world.reconciler._tick()
    assert world.sent.uids == ["uid-of-a"]


async def test_one_unreadable_namespace_stops_no_other() -> None:
    world = World("a", "b", "c")
    world.find("b", problem="WRONGTYPE Operation against a key holding the wrong kind of value")
    for name in "ac":
        attempt = AttemptKey(name, f"uid-of-{name}", 1)
        world.find(name, expired=(attempt,), waiting=((attempt, 10),))
    await world.reconciler._tick()
    assert world.ledger.expired == [AttemptKey("a", "uid-of-a", 1), AttemptKey("c", "uid-of-c", 1)]
    assert world.sent.uids == ["uid-of-a", "uid-of-c"]


async def test_lost_messages_of_tasks_and_chunks_are_sent_again_and_no_other() -> None:
    world = World("a")
    world.add("array", "a", Phase.RUNNING, array={"count": 5})
    world.add("pod", "a", isolation="Pod")
    world.add("next", "a", attempt=2)
    with world.tasks.closing("uid-of-a"):
        places = [("array", 1, 0), ("pod", 1, None), ("next", 1, None), ("uid-of-a", 1, None), ("gone", 1, None)]
        world.find("a", waiting=tuple((AttemptKey("a", *place), 10) for place in places))
        await world.reconciler._tick()
    assert (world.sent.uids, world.arrays.republished) == ([], ["array"])
    world.find("a", waiting=((AttemptKey("a", "next", 2), 10),))
    await world.reconciler._tick()
    assert world.sent.uids == ["next"]
    world.ledger.heads[naming.broker_list("a", "default", 0)] = raw(5)
    await world.reconciler._tick()
    assert world.sent.uids == ["next"], "its message is still to come"


async def test_a_queue_that_is_too_long_for_one_look_is_looked_at_in_turns_and_another_namespace_from_its_begin() -> (
    None
):
    world = World("a", "b")
    full = tuple((AttemptKey("a", f"x{number}", 1), number) for number in range(SCAN // 2))
    world.find("a", waiting=full)
    world.find("b", waiting=full[:10])
    await world.reconciler._tick()
    world.find("a", waiting=full[:1])
    await world.reconciler._tick()
    await world.reconciler._tick()
    assert world.ledger.asked == [{"a": 0, "b": 0}, {"a": SCAN // 2 - 1, "b": 0}, {"a": 0, "b": 0}]


async def test_many_namespaces_are_surveyed_some_at_a_time() -> None:
    world = World(*(f"n{number:03}" for number in range(AT_ONCE + 1)))
    await world.reconciler._tick()
    assert [len(asked) for asked in world.ledger.asked] == [AT_ONCE, 1]
    assert world.ledger.limits == [max(MIN_SCAN, SCAN // AT_ONCE), SCAN]


class There:
    """A ledger in which only some attempts wait."""

    def __init__(self, *waiting: str) -> None:
        self.waiting = waiting
        self.asked: list[str] = []
        self.away = False

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        if self.away:
            raise Unavailable("Redis: down")
        self.asked += [each.uid for each in attempts]
        return [State("", leased=False, waiting=each.uid in self.waiting) for each in attempts]


async def test_what_is_queued_and_in_the_ledger_is_not_entered_again() -> None:
    ledger = There(*map(str, range(0, 500, 2)))
    world = World(ledger=ledger)
    work_queue = world.work_queue
    for number in range(500):
        world.add(str(number), "team-a")
    for uid, phase in (("held", Phase.PENDING), ("runs", Phase.RUNNING)):
        world.add(uid, "team-a", phase)
    await world.reconciler._check_waiting()
    assert set(await work_queue.take(1000)) == {"held", *map(str, range(1, 500, 2))}
    assert ledger.asked == [str(number) for number in range(500)]
    ledger.away = True
    await world.reconciler._check_waiting()
    assert not work_queue


async def test_what_waits_in_a_namespace_that_lost_data_is_looked_at_afterwards() -> None:
    world = World("a", "b", ledger=There())
    world.recovery.data_lost(["a"])
    await world.reconciler._check_waiting()
    assert await world.work_queue.take(10) == ["uid-of-b"]
    await world.end()


async def test_all_are_listed_again_after_a_pause_that_the_last_list_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    slept, lists = list[float](), iter((1.0, 10.0, None, 2.0))

    class Observing:
        async def list(self) -> str:
            if (took := next(lists)) is None:
                raise Unavailable("API server: down")
            world.now += took
            return "1"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 4:
            raise asyncio.CancelledError

    world = World(observer=Observing())
    monkeypatch.setattr("taskflow_operator.tasks.reconciler.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await world.reconciler._resync_forever()
    # A list that failed says nothing of how long one takes.
    assert (slept, world.reconciler.pause) == ([60, 60, 200, 200, 60], 60)
