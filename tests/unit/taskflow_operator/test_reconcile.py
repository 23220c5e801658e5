from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from taskflow_core.broker.publish import HEADER_ENTERED
from taskflow_core.errors import Unavailable
from taskflow_operator.reconcile import Reconciler, lost_messages


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


class Ledger:
    """One that may take no writes, and notes when leases were expired."""

    def __init__(self) -> None:
        self.full = False
        self.expired = 0

    async def begin_epoch(self, epoch: str) -> bool:
        if self.full:
            raise Unavailable("Redis: command not allowed when used memory > 'maxmemory'")
        return False

    async def expire(self) -> list[str]:
        self.expired += 1
        return []

    async def now_ms(self) -> int:
        return 0

    async def waiting(self, **_: int) -> Sequence[tuple[str, int]]:
        return []


async def test_after_an_outage_workers_have_one_lease_to_renew_before_any_is_declared_lost() -> None:
    now, ledger = [100.0], Ledger()
    nothing = cast("Any", None)
    reconciler = Reconciler(
        nothing,
        cast("Any", ledger),
        nothing,
        nothing,
        nothing,
        lease_seconds=15,
        resync_seconds=60,
        clock=lambda: now[0],
    )
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
