"""Ends of attempts that a former operator left unsettled."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, Unavailable
from taskflow_operator.tasks import orphaned_ends
from taskflow_operator.tasks.orphaned_ends import OrphanedEnds
from taskflow_operator.tasks.settlement import Settlement
from tests.builders import make_event, make_task
from tests.unit.taskflow_operator.fakes import FakeLedger, Journal, eventually

DONE = "done|pod|1|x"


@dataclass
class World:
    """A ledger, a history that learns names late or never, and the resources."""

    ledger: FakeLedger = field(default_factory=lambda: FakeLedger(Journal()))
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    mirrored: list[Collection[str]] = field(default_factory=list)
    looks: int = 0
    database_down: int = 0

    async def name_of(self, uid: str) -> tuple[str, str] | None:
        self.looks += 1
        if self.database_down:
            self.database_down -= 1
            raise Unavailable("history database: down")
        return self.names.get(uid)

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        assert method == "GET"
        if (name := path.rpartition("/")[2]) not in self.objects:
            raise NotFound(name)
        return self.objects[name]

    async def mirror_again(self, namespaces: Collection[str]) -> None:
        self.mirrored.append(namespaces)

    def ends(self) -> OrphanedEnds:
        return OrphanedEnds(self.ledger, Settlement(self.ledger), cast("Any", self), self, self.mirror_again)

    def finished(self, uid: str, *, phase: Phase = Phase.SUCCEEDED) -> None:
        task = make_task(uid=uid, name=uid, phase=phase)
        self.ledger.claims[AttemptKey(task.namespace, uid, 1)] = DONE
        self.names[uid] = (task.namespace, task.name)
        meta = {
            "uid": uid,
            "namespace": task.namespace,
            "name": task.name,
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        self.objects[uid] = {"metadata": meta, "spec": {"handler": "h"}, "status": task.status.to_object()}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphaned_ends, "RETRY_SECONDS", 0.001)


def end(uid: str) -> Event:
    return make_event(EventKind.SUCCEEDED, uid=uid, id="2-0", result=3)


async def test_an_end_whose_status_stands_is_settled_in_place_of_who_died() -> None:
    world = World()
    world.finished("a")
    world.database_down = 3
    await world.ends().close(end("a"))
    ((attempt, kind),) = world.ledger.settled
    assert (attempt.uid, attempt.attempt, kind, attempt.snapshot.phase) == ("a", 1, EventKind.SETTLED, Phase.SUCCEEDED)
    assert world.mirrored == []


@pytest.mark.parametrize("claim", ["settled", "deleted"])
async def test_what_was_settled_is_old_news_and_asks_nobody_else(claim: str) -> None:
    world = World()
    world.ledger.claims[AttemptKey("team-a", "a", 1)] = claim
    await world.ends().close(end("a"))
    assert (world.looks, world.ledger.settled) == (0, [])


@pytest.mark.parametrize("gone", ["deleted", "replaced"])
async def test_the_end_of_a_task_that_is_gone_has_nobody_to_tell(gone: str) -> None:
    world = World()
    world.finished("a")
    if gone == "deleted":
        world.objects.clear()
    else:
        world.objects["a"]["metadata"]["uid"] = "another"
    await world.ends().close(end("a"))
    assert (world.ledger.settled, world.mirrored) == ([], [])


async def test_the_end_of_another_namespaces_task_is_not_looked_up_there() -> None:
    # Its token says otherwise, so only a mistake of ours leads here.
    world = World()
    world.finished("a")
    world.names["a"] = ("team-b", "a")
    await world.ends().close(end("a"))
    assert (world.ledger.settled, world.mirrored) == ([], [])


async def test_a_name_that_the_history_learns_late_is_waited_for() -> None:
    world = World()
    world.finished("a")
    where = world.names.pop("a")
    closing = asyncio.create_task(world.ends().close(end("a")))
    await eventually(lambda: world.looks > 2)
    world.names["a"] = where
    await closing
    assert [attempt.uid for attempt, _ in world.ledger.settled] == ["a"]


async def test_what_nobody_can_name_is_mirrored_with_its_namespace() -> None:
    world = World()
    world.ledger.claims[AttemptKey("team-a", "a", 1)] = DONE
    await world.ends().close(end("a"))
    assert world.mirrored == [["team-a"]]
    assert world.looks == orphaned_ends.MAX_LOOKUPS


async def test_a_thousand_of_them_ask_sixteen_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world, ends, at_once = World(), None, [0, 0]
    for number in range(1000):
        world.finished(f"t{number}")
    former = world.request

    async def request(*args: Any, **more: Any) -> dict[str, Any]:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0)
        at_once[0] -= 1
        return await former(*args, **more)

    monkeypatch.setattr(world, "request", request)
    ends = world.ends()
    await asyncio.gather(*(ends.close(end(f"t{number}")) for number in range(1000)))
    assert len(world.ledger.settled) == 1000
    assert at_once[1] <= orphaned_ends.AT_ONCE
