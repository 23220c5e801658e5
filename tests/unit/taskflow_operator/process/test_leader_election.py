from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from taskflow_core.errors import Conflict, Forbidden, NotFound, TaskflowError, Unavailable
from taskflow_operator.process.leader_election import (
    LEASE_DURATION,
    RENEW_DEADLINE,
    AlwaysLeader,
    LeaderElection,
    LeaseLeaderElection,
    LeaseLostError,
)
from taskflow_operator.process.lifecycle import Exit, Lifecycle
from tests.unit.taskflow_operator.clock import Clock, until


class FakeLeases:
    """One Lease, with the API server's rule that a PUT names the version that it replaces."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.error: TaskflowError | None = None
        self.loses_answers = False
        self.requests: list[str] = []

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        self.requests.append(method)
        if self.error is not None:
            raise self.error
        answer = self._answer(method, path, body)
        if self.loses_answers and method == "PUT":
            raise Unavailable("API server: connection lost")
        return copy.deepcopy(answer)

    def _answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        assert path.startswith("/apis/coordination.k8s.io/v1/namespaces/ns/leases")
        if method == "POST":
            if self.lease is not None:
                raise Conflict("exists")
            return self._store(body)
        if self.lease is None:
            raise NotFound("no such Lease")
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Conflict("changed meanwhile")
            return self._store(body)
        return self.lease

    def _store(self, body: Any) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(body)
        assert self.lease is not None
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


def make(leases: FakeLeases, clock: Clock, identity: str = "a") -> LeaseLeaderElection:
    return LeaseLeaderElection(leases, "ns", identity, clock=clock, sleep=clock.sleep)


async def lead(leases: FakeLeases, clock: Clock, identity: str = "a") -> LeaseLeaderElection:
    leadership = make(leases, clock, identity)
    await leadership.acquire()
    return leadership


async def test_the_first_one_leads_at_once() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock)
    assert leader.is_confirmed()
    assert leases.holder == leader.holder == "a"
    assert clock.now == 1000.0
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseDurationSeconds"] == LEASE_DURATION


async def test_a_standby_takes_over_exactly_when_the_lease_it_saw_runs_out() -> None:
    leases, clock = FakeLeases(), Clock()
    await lead(leases, clock, "a")
    standby = await lead(leases, clock, "b")
    assert standby.is_confirmed()
    assert leases.holder == "b"
    assert clock.now - 1000.0 == pytest.approx(LEASE_DURATION, abs=0.1)
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1


async def test_a_standby_judges_by_the_renewals_it_sees_and_never_by_the_times_in_the_lease() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock, "a")
    assert leases.lease is not None
    # The leader's clock is an hour behind; it renews in time nevertheless.
    waiting = asyncio.create_task(make(leases, clock, "b").acquire())
    for _ in range(30):
        leases.lease["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
        await leader._renew()
        await clock.sleep(1)
    assert not waiting.done()
    waiting.cancel()


async def test_a_released_lease_is_taken_without_waiting_for_it_to_run_out() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock, "a")
    await leader.release()
    assert not leader.is_confirmed()
    assert leases.holder == ""
    await lead(leases, clock, "b")
    assert clock.now == 1000.0
    assert leases.holder == "b"


async def test_a_process_that_is_started_again_under_its_name_goes_on_at_once() -> None:
    leases, clock = FakeLeases(), Clock()
    former = await lead(leases, clock, "pod-1")
    again = await lead(leases, clock, "pod-1")
    assert clock.now == 1000.0
    assert again.is_confirmed()
    # Should the former one live after all, it is the one that has to go.
    clock.now += 1
    with pytest.raises(LeaseLostError, match="another process calls itself pod-1"):
        await former.hold()


async def test_a_holder_that_cannot_renew_is_in_doubt_before_another_may_take_over() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock)
    leases.error = Unavailable("API server: gone")
    holding = asyncio.create_task(leader.hold())
    with capture_logs() as logs:
        await until(lambda: not leader.is_confirmed())
        assert RENEW_DEADLINE <= clock.now - 1000.0 < LEASE_DURATION
        # Nobody else took it meanwhile: when the API server is back, the doubt is over.
        leases.error = None
        await asyncio.wait_for(leader.until_confirmed(), 5)
        await asyncio.sleep(0)
    assert leases.holder == "a"
    assert [line["event"] for line in logs if line["event"].startswith("leadership")] == [
        "leadership_in_doubt",
        "leadership_confirmed",
    ]
    holding.cancel()


async def test_a_holder_that_was_away_too_long_learns_that_another_one_leads() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock, "a")
    await lead(leases, clock, "b")
    assert not leader.is_confirmed()
    with pytest.raises(LeaseLostError, match="held by b"):
        await leader.hold()
    assert not leader.is_confirmed()
    assert leases.holder == "b"


async def test_a_renewal_whose_answer_was_lost_is_no_loss() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock)
    leases.loses_answers = True
    with pytest.raises(Unavailable):
        await leader._renew()
    leases.loses_answers = False
    await leader._renew()
    assert leader.is_confirmed()
    assert leases.holder == "a"


async def test_labels_put_on_the_lease_by_a_person_are_kept() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock)
    assert leases.lease is not None
    leases._store({**leases.lease, "metadata": {**leases.lease["metadata"], "labels": {"a": "b"}}})
    await leader._renew()
    assert leases.lease["metadata"]["labels"] == {"a": "b"}


async def test_a_deleted_lease_is_made_anew_by_its_holder_unless_another_one_was_faster() -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock, "a")
    leases.lease = None
    await leader._renew()
    assert leases.holder == "a"
    leases.lease = None
    await lead(leases, clock, "b")
    with pytest.raises(LeaseLostError, match="held by b"):
        await leader._renew()


async def test_two_standbys_never_both_lead() -> None:
    leases, clock = FakeLeases(), Clock()
    gone = await lead(leases, clock, "gone")
    standbys = [make(leases, clock, name) for name in ("b", "c")]
    acquiring = [asyncio.create_task(each.acquire()) for each in standbys]
    done, _ = await asyncio.wait(acquiring, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert len(done) == 1
    assert [each.is_confirmed() for each in (gone, *standbys)].count(True) == 1
    for job in acquiring:
        job.cancel()


async def test_a_missing_permission_is_said_once_and_tried_again() -> None:
    leases, clock = FakeLeases(), Clock()
    leases.error = Forbidden("leases is forbidden")
    with capture_logs() as logs:
        acquiring = asyncio.create_task(make(leases, clock).acquire())
        await until(lambda: len(leases.requests) >= 5)
        leases.error = None
        await asyncio.wait_for(acquiring, 5)
    assert [line["event"] for line in logs].count("lease_refused") == 1


async def test_a_request_that_hangs_is_given_up_so_that_doubt_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    leases, clock = FakeLeases(), Clock()
    leader = await lead(leases, clock)
    monkeypatch.setattr("taskflow_operator.process.leader_election.REQUEST_SECONDS", 0.01)

    async def hang(method: str, path: str, body: Any = None) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(leases, "request", hang)
    with pytest.raises(Unavailable, match="no answer within"):
        await leader._renew()


class FakeWork:
    """Keeps a record of its life."""

    def __init__(self, record: list[str], *, breaks: bool = False) -> None:
        self._record = record
        self._breaks = breaks

    async def work(self) -> None:
        self._record.append("work")
        if self._breaks:
            raise OSError("broken")
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self._record.append("drain")


class FakeLeadership(AlwaysLeader):
    def __init__(self, record: list[str], *, lost: bool = False) -> None:
        self._record = record
        self._lost = lost

    async def hold(self) -> None:
        if self._lost:
            raise LeaseLostError("held by b")
        await super().hold()

    async def release(self) -> None:
        self._record.append("release")


def never(code: int) -> None:
    raise AssertionError(f"ended with {code}")


def lifecycle(leadership: LeaderElection, work: FakeWork, end_now: Callable[[int], None] = never) -> Lifecycle:
    return Lifecycle(leadership, work, end_now, lambda: None)


async def test_the_lease_is_released_after_everything_else_stopped() -> None:
    record, stop = list[str](), asyncio.Event()
    running = asyncio.create_task(lifecycle(FakeLeadership(record), FakeWork(record)).run(stop))
    await until(lambda: record == ["work"])
    stop.set()
    assert await running is Exit.STOPPED
    assert record == ["work", "drain", "release"]


async def test_a_standby_that_is_stopped_never_worked() -> None:
    record, stop, leases, clock = list[str](), asyncio.Event(), FakeLeases(), Clock()
    await lead(leases, clock, "other")
    leases.error = Unavailable("API server: away")
    running = asyncio.create_task(lifecycle(make(leases, clock, "b"), FakeWork(record)).run(stop))
    stop.set()
    assert await running is Exit.STOPPED
    assert record == []


async def test_a_part_that_breaks_ends_the_process_in_order_and_says_so() -> None:
    record = list[str]()
    with capture_logs() as logs:
        broken = lifecycle(FakeLeadership(record), FakeWork(record, breaks=True))
        assert await broken.run(asyncio.Event()) is Exit.BROKEN
    assert record == ["work", "drain", "release"]
    assert logs[0]["event"] == "operator_broken"


async def test_a_lost_lease_ends_the_process_at_once_with_its_own_code() -> None:
    record, ended = list[str](), list[int]()

    def end_now(code: int) -> None:
        ended.append(code)
        assert record in ([], ["work"]), "nothing may be written after the loss"

    await lifecycle(FakeLeadership(record, lost=True), FakeWork(record), end_now).run(asyncio.Event())
    assert ended == [Exit.LEASE_LOST] == [3]
