from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from taskflow_core.domain.attempts import AttemptKey, Held, State
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_operator.tasks.lost_workers import LOOKS, LostWorkers, void
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import Death
from tests.builders import NOW_MS, make_task

LEASE_MS = 15_000
ENDED = datetime.fromtimestamp(NOW_MS / 1000, UTC)


def held(uid: str, worker: str = "w-1:aa", *, renewed_ago: int = 7000) -> Held:
    return Held(
        AttemptKey("team-a", uid, 1),
        f"{worker}|7|nonce",
        NOW_MS - renewed_ago + LEASE_MS,
        NOW_MS,
    )


@pytest.mark.parametrize(
    ("renewed_ago", "ended_ago", "expected"),
    [(7000, 3, True), (7000, 7.9, True), (3000, 2, False), (7000, 9, False)],
    ids=["of the container", "within the second of its end", "may be renewed yet", "claimed by the next one"],
)
def test_what_a_pod_holds_is_void_if_it_is_of_the_container_that_ended(
    renewed_ago: int, ended_ago: float, expected: bool
) -> None:
    ended = datetime.fromtimestamp(NOW_MS / 1000 - ended_ago, UTC)
    assert void(held("a", renewed_ago=renewed_ago), LEASE_MS, ended) is expected


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_a_worker_that_renews_keeps_what_it_holds_whatever_the_clock_of_its_node_says(skew: int) -> None:
    ended = datetime.fromtimestamp(NOW_MS / 1000 + skew, UTC)
    assert not void(held("a", renewed_ago=5000), LEASE_MS, ended)


@dataclass
class Ledger:
    held_now: list[Held] = field(default_factory=list)
    expired: list[AttemptKey] = field(default_factory=list)
    failures: dict[AttemptKey, Failure] = field(default_factory=dict)
    holders: dict[AttemptKey, str] = field(default_factory=dict)
    asked: int = 0

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        claims = {each.key: each.claim for each in self.held_now}
        return [State(claims.get(key, ""), leased=True, waiting=False) for key in attempts]

    async def held(self, namespace: str, pod: str, *, limit: int) -> list[Held]:
        self.asked += 1
        return [each for each in self.held_now if each.key.namespace == namespace and each.worker.startswith(f"{pod}:")]

    async def expire(
        self,
        expired: Sequence[AttemptKey],
        nobodys: Sequence[tuple[str, str]] = (),
        *,
        failures: Mapping[AttemptKey, Failure] | None = None,
        holders: Mapping[AttemptKey, str] | None = None,
    ) -> list[AttemptKey]:
        assert not nobodys
        self.expired += expired
        self.failures |= failures or {}
        self.holders |= holders or {}
        self.held_now = [each for each in self.held_now if each.key not in expired]
        return list(expired)


class Deaths:
    def __init__(self, reason: Reason = Reason.OUT_OF_MEMORY) -> None:
        self.reason = reason

    def death(self, namespace: str, pod: str) -> Death | None:
        return Death(self.reason, f"pod {pod} died") if pod == "w-1" else None


def world(*uids: str, reason: Reason = Reason.OUT_OF_MEMORY) -> tuple[LostWorkers, Ledger]:
    tasks, ledger = OpenTasks(), Ledger()
    for uid in uids:
        tasks.add(make_task(uid=uid, name=uid, phase=Phase.RUNNING, status={"attempt": 1}))
    return LostWorkers(tasks, ledger, Deaths(reason), lease_seconds=15), ledger


async def test_what_the_next_container_of_the_pod_claims_is_its_own() -> None:
    lost, ledger = world("a")
    lost.worker_ended("team-a", "w-1", datetime.fromtimestamp(NOW_MS / 1000 - 9, UTC))
    ledger.held_now = [held("a", renewed_ago=7000)]
    for _ in range(LOOKS):
        await lost.look()
    assert ledger.expired == []


async def test_the_attempts_of_a_dead_worker_are_lost_soon_and_those_of_others_stay() -> None:
    lost, ledger = world("a", "b")
    ledger.held_now = [held("a"), held("b", "w-10:bb")]
    lost.worker_ended("team-a", "w-1", ENDED)
    await lost.look()
    key = AttemptKey("team-a", "a", 1)
    assert ledger.expired == [key]
    assert ledger.holders == {key: "w-1:aa|7|nonce"}
    assert (ledger.failures[key].reason, ledger.failures[key].beside) == (Reason.OUT_OF_MEMORY, 0)


async def test_a_claim_that_arrives_late_is_found_and_then_no_more_is_asked() -> None:
    lost, ledger = world("a")
    lost.worker_ended("team-a", "w-1", ENDED)
    await lost.look()
    ledger.held_now = [held("a")]
    for _ in range(LOOKS + 10):
        await lost.look()
    assert (len(ledger.expired), ledger.asked) == (1, LOOKS + 6)


async def test_a_name_that_is_no_attempt_of_an_open_task_gets_no_token() -> None:
    lost, ledger = world("a")
    ledger.held_now = [held("forged")]
    lost.worker_ended("team-a", "w-1", ENDED)
    await lost.look()
    assert ledger.expired == []


async def test_attempts_that_died_together_for_want_of_memory_know_of_each_other() -> None:
    lost, ledger = world("a", "b", "c")
    ledger.held_now = [held("a"), held("b"), held("c", "w-1:former")]
    lost.worker_ended("team-a", "w-1", ENDED)
    await lost.look()
    assert [ledger.failures[AttemptKey("team-a", uid, 1)].beside for uid in "abc"] == [1, 1, 0]
    assert ledger.failures[AttemptKey("team-a", "a", 1)].message == (
        "pod w-1 died. 1 more attempt ran in the container; which of them used the memory is not known"
    )


async def test_only_want_of_memory_is_shared() -> None:
    lost, ledger = world("a", "b", reason=Reason.EVICTED)
    ledger.held_now = [held("a"), held("b")]
    found = await lost.explain([each.key for each in ledger.held_now])
    assert {(each.reason, each.beside, each.message) for each in found.values()} == {
        (Reason.EVICTED, 0, "pod w-1 died")
    }


async def test_of_a_worker_that_nothing_is_known_of_nothing_is_told() -> None:
    lost, ledger = world("a")
    ledger.held_now = [held("a", "by-hand:aa")]
    assert await lost.explain([AttemptKey("team-a", "a", 1)]) == {}
    ledger.held_now = []
    assert await lost.explain([AttemptKey("team-a", "a", 1)]) == {}
