from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from taskflow_core.domain.events import EntryId, Event, EventKind, Origin, Stream
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_core.kube.client import Page
from taskflow_operator.history import mirror
from taskflow_operator.history.mirror import SEPARATE_LISTS, HistoryMirror
from tests.builders import make_event, make_object, make_task
from tests.unit.taskflow_operator.fakes import eventually

BROKEN = "it does not fit"
REFUSED = EntryId(Stream("team-a", Origin.WORKERS), "9-9")


class FakeHistory:
    """A database that can be away, and that cannot take some things."""

    def __init__(self) -> None:
        self.away = False
        self.mirrors = 0
        self.events: list[Event] = []
        self.tasks: list[str] = []

    async def apply_events(self, events: Sequence[Event]) -> None:
        self._check()
        if any(event.worker == BROKEN for event in events):
            raise ValueError(BROKEN)
        self.events += events

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        self._check()
        self.mirrors += 1
        self.tasks += [task.uid for task in tasks]

    def _check(self) -> None:
        if self.away:
            raise Unavailable("history database: away")


class Marks:
    """Marks of namespaces whose history may lack something."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.seen: list[tuple[str, str]] = []

    def marks_of(self, names: Iterable[str]) -> list[tuple[str, str]]:
        return [(name, self.there[name]) for name in sorted(names) if name in self.there]

    async def mirrored(self, marks: Collection[tuple[str, str]]) -> None:
        self.seen += marks


class World:
    """Lists of Tasks, each as slow as the test likes."""

    def __init__(self) -> None:
        self.history, self.marks = FakeHistory(), Marks()
        self.acknowledged: list[EntryId] = []
        self.listed: list[str | None] = []
        self.items: list[dict[str, Any]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.mirror = HistoryMirror(self.history, self._acknowledge, self._pages, cast("Any", self.marks))

    async def _acknowledge(self, entries: Sequence[EntryId]) -> None:
        self.acknowledged += entries

    async def _pages(self, namespace: str | None) -> AsyncIterator[Page]:
        self.listed.append(namespace)
        await self.go_on.wait()
        yield Page(self.items, "9")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.create_task(self.mirror.run())
        try:
            yield
        finally:
            assert not loop.done()
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


def started(number: int, worker: str = "w") -> Event:
    return make_event(EventKind.STARTED, id=f"{number}-0", worker=worker)


async def test_a_batch_is_acknowledged_after_it_is_stored_with_what_was_refused() -> None:
    world = World()
    await world.mirror.take((started(1), started(2)), (REFUSED,))
    assert world.history.events == [started(1), started(2)]
    assert world.acknowledged == [started(1).entry, started(2).entry, REFUSED]


async def test_while_the_database_is_away_nothing_is_acknowledged() -> None:
    world = World()
    world.history.away = True
    with pytest.raises(Unavailable):
        await world.mirror.take((started(1),), (REFUSED,))
    assert world.acknowledged == []


async def test_an_event_that_the_database_cannot_take_is_left_out_and_stops_no_other() -> None:
    world = World()
    await world.mirror.take((started(1), started(2, BROKEN), started(3)), ())
    assert world.history.events == [started(1), started(3)]
    assert [entry.id for entry in world.acknowledged] == ["1-0", "2-0", "3-0"]


async def test_who_asked_for_a_mirror_hears_of_it_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.001)
    world = World()
    world.history.away = True
    async with world.running():
        told = world.mirror.mirror_again(["team-a"])
        await eventually(lambda: len(world.listed) > 2)
        assert not told.done()
        assert world.marks.seen == []
        world.history.away = False
        await asyncio.wait_for(told, 5)
    assert set(world.listed) == {"team-a"}


async def test_who_asks_while_a_list_is_read_waits_for_the_next() -> None:
    world = World()
    world.go_on.clear()
    async with world.running():
        first = world.mirror.mirror_again(["team-a"])
        await eventually(lambda: len(world.listed) == 1)
        second = world.mirror.mirror_again(["team-a"])
        world.go_on.set()
        await asyncio.wait_for(first, 5)
        await asyncio.wait_for(second, 5)
    assert world.history.mirrors == 2


async def test_only_the_namespaces_that_lack_something_are_listed() -> None:
    world = World()
    unreadable = make_object(make_task())
    unreadable["metadata"]["generation"] = "latest"
    world.items = [unreadable, make_object(make_task())]
    async with world.running():
        await asyncio.wait_for(world.mirror.mirror_again(["b", "a"]), 5)
    assert world.listed == ["a", "b"]
    assert world.history.tasks == [make_task().uid] * 2


async def test_many_namespaces_are_one_list() -> None:
    world = World()
    async with world.running():
        await asyncio.wait_for(world.mirror.mirror_again([str(number) for number in range(SEPARATE_LISTS + 1)]), 5)
    assert world.listed == [None]


async def test_only_marks_from_before_the_list_are_seen_to() -> None:
    world = World()
    world.marks.there = {"a": "first", "other": "x"}
    world.go_on.clear()
    async with world.running():
        told = world.mirror.mirror_again(["a"])
        await eventually(lambda: world.listed)
        world.marks.there["a"] = "second"
        world.go_on.set()
        await asyncio.wait_for(told, 5)
    assert world.marks.seen == [("a", "first")]
