from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from taskflow_core.domain.attempts import State
from taskflow_core.domain.events import Failure
from taskflow_core.domain.message import HEADER_ENTERED
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.errors import Conflict, Unavailable
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.reconciler import Reconciler, lost_messages, pause_after
from taskflow_operator.tasks.recovery import Recovery
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.builders import make_task
from tests.unit.taskflow_operator.fakes import FakeArrays


def raw(entered: int) -> str:
    return json.dumps({"body": "", "headers": {HEADER_ENTERED: entered}})


FOREIGN = json.dumps({"body": "", "headers": {}})


@pytest.mark.parametrize(
    ("head", "lost"),
    [
        (None, True),
        (raw(1001), True),
        (raw(1000), False),
        (raw(999), False),
        (FOREIGN, False),
        ("no json", False),
    ],
    ids=["empty list", "begins later", "is it or as old", "begins earlier", "not ours", "no message"],
)
def test_a_message_is_lost_when_its_list_is_past_it(head: str | None, lost: bool) -> None:
    assert lost_messages([("a:1", 1000)], {"a:1": "q"}, {"q": head}) == (["a:1"] if lost else [])


def test_each_member_is_held_against_its_own_list() -> None:
    waiting = [("a:1", 10), ("b:1", 20), ("c:1", 30), ("d:1", 40)]
    lists = {"a:1": "x", "b:1": "x", "c:1": "y", "d:1": "z"}
    assert lost_messages(waiting, lists, {"x": raw(20), "y": None, "z": raw(1)}) == ["a:1", "c:1"]


def test_a_member_of_a_task_that_is_not_open_is_left_alone() -> None:
    assert lost_messages([("gone:1", 10)], {}, {}) == []


@pytest.mark.parametrize(
    ("resync", "took", "pause"),
    [(60, 0.1, 60), (60, 3, 60), (60, 5, 100), (60, 30, 300), (600, 30, 600), (5, 0, 5), (5, 30, 25)],
)
def test_a_list_that_takes_long_is_made_less_often(resync: float, took: float, pause: float) -> None:
    assert pause_after(resync, took) == pause


class Ledger:
    """One that may take no writes, and notes when leases were expired."""

    def __init__(self) -> None:
        self.full = False
        self.expired = 0
        self.operator = "ns/lease"
        self.begun = 0

    async def serve(self, operator: str) -> str:
        return self.operator or operator

    async def begin_epoch(self, epoch: str) -> bool:
        if self.full:
            raise Unavailable("Redis: command not allowed when used memory > 'maxmemory'")
        self.begun += 1
        return False

    async def expire(self) -> list[str]:
        self.expired += 1
        return []

    async def now_ms(self) -> int:
        return 0

    async def waiting(self, **_: int) -> Sequence[tuple[str, int]]:
        return []


def make_recovery(ledger: object, now: Sequence[float], tasks: OpenTasks, work_queue: WorkQueue) -> Recovery:
    return Recovery(tasks, cast("Any", ledger), work_queue, FakeArrays(tasks), lease_seconds=15, clock=lambda: now[0])


def make_reconciler(
    ledger: object = None,
    now: Sequence[float] = (100.0,),
    *,
    tasks: OpenTasks | None = None,
    work_queue: WorkQueue | None = None,
    observer: object = None,
    read: Sequence[float] | None = None,
) -> Reconciler:
    """One that has what its test is about, and nothing else; it has read all there is, unless told until when."""
    tasks = OpenTasks() if tasks is None else tasks
    work_queue = WorkQueue() if work_queue is None else work_queue
    return Reconciler(
        tasks,
        cast("Any", ledger),
        work_queue,
        cast("Any", None),
        cast("Any", None),
        cast("Any", observer),
        make_recovery(ledger, now, tasks, work_queue),
        lease_name="ns/lease",
        resync_seconds=60,
        caught_up=lambda: (read or now)[0],
        clock=lambda: now[0],
    )


async def test_the_redis_of_another_operator_is_left_alone() -> None:
    ledger = Ledger()
    reconciler = make_reconciler(ledger)
    ledger.operator = "ns/other"
    with pytest.raises(
        Conflict, match="the operator of Lease ns/other works with this Redis, and this one has Lease ns/lease"
    ):
        await reconciler.start()
    assert ledger.begun == 0
    ledger.operator = "ns/lease"
    await reconciler.start()
    assert ledger.begun == 1


async def test_after_an_outage_workers_have_one_lease_to_renew_before_any_is_declared_lost() -> None:
    now, ledger = [100.0], Ledger()
    reconciler = make_reconciler(ledger, now)
    await reconciler._tick()
    assert ledger.expired == 1
    ledger.full = True
    for _ in range(30):
        now[0] += 1
        with pytest.raises(Unavailable):
            await reconciler._tick()
    ledger.full = False
    for _ in range(15):
        now[0] += 1
        await reconciler._tick()
    assert ledger.expired == 1
    now[0] += 1
    await reconciler._tick()
    assert ledger.expired == 2


class Forgotten:
    """A ledger after lost data: one attempt was entered again by its worker."""

    def __init__(self, held: str) -> None:
        self.held = held
        self.given_up: list[tuple[str, int]] = []
        self.reasons: set[Reason] = set()

    async def states(self, attempts: Sequence[tuple[str, int]]) -> list[State]:
        return [State("", leased=uid == self.held, waiting=False) for uid, _ in attempts]

    async def give_up(self, attempts: Sequence[tuple[str, int]], failure: Failure) -> list[bool]:
        self.given_up += attempts
        self.reasons.add(failure.reason)
        return [True for _ in attempts]


async def test_after_half_a_lease_what_waited_is_entered_again_and_what_nobody_holds_is_given_up_in_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks, work_queue, ledger = OpenTasks(), WorkQueue(), Forgotten("held")
    for uid, phase in (("waits", Phase.QUEUED), ("held", Phase.RUNNING), ("adrift", Phase.RUNNING)):
        tasks.add(make_task(uid=uid, name=uid, phase=phase))
    recovery = make_recovery(ledger, [100.0], tasks, work_queue)
    slept: list[float] = []
    held: list[bool] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        held.extend(known.held for known in tasks)

    monkeypatch.setattr("taskflow_operator.tasks.recovery.asyncio.sleep", sleep)
    recovery.data_lost("a test")
    for job in list(recovery._background._tasks):
        await job
    assert slept == [7.5]
    assert held == [True, True, True]
    assert not any(known.held for known in tasks)
    assert ledger.given_up == [("adrift", 1)]
    assert ledger.reasons == {Reason.BROKER_DATA_LOST}
    assert set(await work_queue.take(10)) == {"waits", "held", "adrift"}


class There:
    """A ledger in which only some attempts wait."""

    def __init__(self, *waiting: str) -> None:
        self.waiting = waiting
        self.asked: list[str] = []
        self.away = False

    async def states(self, attempts: Sequence[tuple[str, int]]) -> list[State]:
        if self.away:
            raise Unavailable("Redis: down")
        self.asked += [uid for uid, _ in attempts]
        return [State("", leased=False, waiting=uid in self.waiting) for uid, _ in attempts]


async def test_what_is_queued_and_in_the_ledger_is_not_entered_again() -> None:
    tasks, work_queue, ledger = OpenTasks(), WorkQueue(), There(*map(str, range(0, 500, 2)))
    for number in range(500):
        tasks.add(make_task(uid=str(number), name=f"t{number}", phase=Phase.QUEUED))
    for uid, phase in (("held", Phase.PENDING), ("runs", Phase.RUNNING)):
        tasks.add(make_task(uid=uid, name=uid, phase=phase))
    reconciler = make_reconciler(ledger, tasks=tasks, work_queue=work_queue)
    await reconciler._check_waiting()
    assert set(await work_queue.take(1000)) == {"held", *map(str, range(1, 500, 2))}
    assert ledger.asked == [str(number) for number in range(500)]
    ledger.away = True
    await reconciler._check_waiting()
    assert not work_queue


async def test_all_are_listed_again_after_a_pause_that_the_last_list_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept, lists = [100.0], list[float](), iter((1.0, 10.0, None, 2.0))

    class Observing:
        async def list(self) -> str:
            if (took := next(lists)) is None:
                raise Unavailable("API server: down")
            now[0] += took
            return "1"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 4:
            raise asyncio.CancelledError

    reconciler = make_reconciler(now=now, observer=Observing())
    monkeypatch.setattr("taskflow_operator.tasks.reconciler.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await reconciler._resync_forever()
    # A list that failed says nothing of how long one takes.
    assert slept == [60, 60, 200, 200, 60]
    assert reconciler.pause == 60


async def test_an_attempt_is_adrift_only_when_all_that_the_stream_held_at_the_first_look_was_read() -> None:
    tasks, ledger, now, read = OpenTasks(), Forgotten("held"), [100.0], [100.0]
    tasks.add(make_task(uid="a", name="a", phase=Phase.RUNNING))
    recovery = make_recovery(ledger, now, tasks, WorkQueue())
    for _ in range(3):
        # Its end may be in what the reader has not come to.
        await recovery.check_running(read[0])
        now[0] += 60
    assert ledger.given_up == []
    read[0] = now[0]
    await recovery.check_running(read[0])
    assert ledger.given_up == [("a", 1)]
