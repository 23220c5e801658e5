"""What the reconciler does with leases that ran out: a worker may enter any name among them."""

from __future__ import annotations

from taskflow_core.domain.attempts import AttemptKey
from tests.unit.taskflow_operator.tasks.test_reconciler import World


async def test_attempts_whose_lease_ran_out_are_declared_lost() -> None:
    world = World("a")
    world.add("array", "a", array={"count": 3})
    expired = AttemptKey("a", "uid-of-a", 1), AttemptKey("a", "array", 3, 7)
    world.find("a", expired=expired)
    await world.reconciler._tick()
    assert (world.ledger.expired, world.ledger.nobodys) == ([*expired], [])


async def test_what_no_open_task_of_the_namespace_runs_gets_no_token() -> None:
    world = World("a", "b")
    world.add("array", "a", array={"count": 3})
    forged = [
        AttemptKey("a", "a-finished-task-of-whomever", 1),
        AttemptKey("a", "uid-of-b", 1),
        AttemptKey("a", "uid-of-a", 2),
        AttemptKey("a", "uid-of-a", 1, 0),
        AttemptKey("a", "array", 1),
    ]
    world.find("a", expired=forged)
    await world.reconciler._tick()
    assert world.ledger.expired == []
    assert world.ledger.nobodys == [("a", each.member) for each in forged]


async def test_names_among_the_leases_that_are_no_attempts_are_only_removed() -> None:
    world = World("a", "b")
    hostile = ("", ":", "x:0", "../x:1", "uid:1:1:1", "\udcff:1", "tf:{b}:lease")
    assert all(AttemptKey.of("a", name) is None for name in hostile)
    world.find("a", nobodys=hostile, removed=3)
    world.find("b", expired=(AttemptKey("b", "uid-of-b", 1),))
    await world.reconciler._tick()
    assert world.ledger.nobodys == [("a", name) for name in hostile]
    assert world.ledger.expired == [AttemptKey("b", "uid-of-b", 1)]


async def test_an_attempt_whose_worker_is_known_to_have_died_ends_with_the_cause() -> None:
    world = World("a", "b")
    dead, unknown = AttemptKey("a", "uid-of-a", 1), AttemptKey("b", "uid-of-b", 1)
    world.ledger.claims = {dead: "dead:1f|7|x", unknown: "other:2e|7|x"}
    world.find("a", expired=(dead,))
    world.find("b", expired=(unknown,))
    await world.reconciler._tick()
    assert world.ledger.expired == [dead, unknown]
    assert {key: each.reason for key, each in world.ledger.failures.items()} == {dead: "Evicted"}
