from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from taskflow_core.domain.event_input import Refusal
from taskflow_core.domain.events import EntryId, Event, EventKind, Origin, Stream
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.stream import STREAMS_PER_READ, Read, RefusedEntry
from taskflow_operator.runtime import dependency_health, stream_group
from taskflow_operator.runtime.stream_group import StreamGroup
from tests.builders import make_event
from tests.unit.taskflow_operator.fakes import FakeClock, at_once, eventually

BATCH = 2
"""Entries that one read of a stream takes."""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stream_group, dependency_health):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)


def stream(namespace: str) -> Stream:
    return Stream(namespace, Origin.WORKERS)


def event(namespace: str, number: int) -> Event:
    return make_event(EventKind.STARTED, namespace=namespace, id=f"{number}-0")


def no_event(namespace: str, number: int, reason: Refusal = Refusal.TOKEN) -> RefusedEntry:
    return RefusedEntry(EntryId(stream(namespace), f"{number}-0"), reason, "it is forged")


class Reader:
    """A consumer group over streams in memory."""

    group = "cr"

    def __init__(self) -> None:
        self.streams: dict[Stream, list[Event | RefusedEntry]] = {}
        self.reads: list[tuple[Stream, ...]] = []
        self.again: list[Stream] = []
        self.down = 0
        self.problems: dict[Stream, str] = {}

    def add(self, *entries: Event | RefusedEntry) -> None:
        for each in entries:
            place = each.entry.stream
            self.streams.setdefault(place, []).append(each)

    def start_over(self, place: Stream) -> None:
        self.again.append(place)

    async def read(self, streams: Sequence[Stream]) -> list[Read]:
        self.reads.append(tuple(streams))
        await asyncio.sleep(0)
        if self.down:
            self.down -= 1
            raise Unavailable("Redis: down")
        return [self._one(each) for each in streams]

    def _one(self, place: Stream) -> Read:
        if place in self.problems:
            return Read(place, problem=self.problems[place])
        rest = self.streams.get(place, [])
        taken, self.streams[place] = rest[:BATCH], rest[BATCH:]
        events = tuple(each for each in taken if isinstance(each, Event))
        refused = tuple(each for each in taken if isinstance(each, RefusedEntry))
        return Read(place, events, refused, last=len(taken) < BATCH)


class World:
    def __init__(self, *, may_read: Callable[[], Any] = at_once) -> None:
        self.reader, self.clock = Reader(), FakeClock()
        self.batches: list[tuple[tuple[Event, ...], tuple[EntryId, ...]]] = []
        self.failures: list[Exception] = []
        self.group = StreamGroup(cast("Any", self.reader), self._handle, may_read, gather_seconds=0.0, clock=self.clock)

    async def _handle(self, events: tuple[Event, ...], refused: tuple[EntryId, ...]) -> None:
        self.batches.append((events, refused))
        if self.failures:
            raise self.failures.pop(0)

    @property
    def handed(self) -> list[Event]:
        return [event for events, _ in self.batches for event in events]

    @property
    def refused(self) -> list[EntryId]:
        return [entry for _, refused in self.batches for entry in refused]

    def ready(self, *namespaces: str) -> None:
        self.group.ready(map(stream, namespaces))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.create_task(self.group.run())
        try:
            yield
        finally:
            assert not loop.done()
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


def numbers(events: Iterable[Event]) -> list[tuple[str, str]]:
    return [(each.namespace, each.id) for each in events]


async def test_a_stream_is_read_only_when_it_may_have_something() -> None:
    world = World()
    async with world.running():
        await asyncio.sleep(0.01)
        assert world.reader.reads == []
        world.reader.add(event("a", 1))
        world.ready("a")
        await eventually(lambda: world.handed)
        await asyncio.sleep(0.01)
    assert world.reader.reads == [(stream("a"),)]
    assert numbers(world.handed) == [("a", "1-0")]


async def test_a_stream_is_read_until_it_has_nothing_more() -> None:
    world = World()
    world.reader.add(*(event("a", number) for number in range(5)))
    world.ready("a")
    async with world.running():
        await eventually(lambda: len(world.handed) == 5)
        await asyncio.sleep(0.01)
    assert numbers(world.handed) == [("a", f"{number}-0") for number in range(5)]
    assert len(world.reader.reads) == 3


async def test_the_flood_of_one_namespace_delays_another_by_one_read() -> None:
    world = World()
    world.reader.add(*(event("flood", number) for number in range(1000)))
    world.ready("flood")
    async with world.running():
        await eventually(lambda: len(world.handed) > 10)
        before = len(world.reader.reads)
        world.reader.add(event("b", 1))
        world.ready("b")
        await eventually(lambda: ("b", "1-0") in numbers(world.handed))
        place = next(place for place, read in enumerate(world.reader.reads) if stream("b") in read)
        assert place <= before + 1
        assert world.reader.streams[stream("flood")]


async def test_more_streams_than_one_read_takes_are_read_in_turn() -> None:
    world = World()
    names = [f"n{number:03}" for number in range(2 * STREAMS_PER_READ + 5)]
    world.reader.add(*(event(name, number) for name in names for number in range(3)))
    world.ready(*names)
    async with world.running():
        await eventually(lambda: len(world.handed) == 3 * len(names))
    assert max(map(len, world.reader.reads)) == STREAMS_PER_READ
    # Each has had one turn before any has its second.
    first = [each for read in world.reader.reads for each in read][: len(names)]
    assert set(first) == {stream(name) for name in names}
    for name in names:
        assert [each.id for each in world.handed if each.namespace == name] == ["0-0", "1-0", "2-0"]


async def test_a_stream_with_nothing_but_refused_entries_waits_between_two_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_group, "PENALTY_SECONDS", 1000)
    world = World()
    world.reader.add(*(no_event("a", number) for number in range(4)))
    world.reader.add(*(event("b", number) for number in range(20)))
    world.ready("a", "b")
    async with world.running():
        await eventually(lambda: len(world.handed) == 20)
        # However often it is announced meanwhile.
        for _ in range(10):
            world.ready("a")
            await asyncio.sleep(0.001)
        assert sum(stream("a") in read for read in world.reader.reads) == 1
        monkeypatch.setattr(stream_group, "PENALTY_SECONDS", 0)
        world.group._pardon(stream("a"))
        await eventually(lambda: len(world.refused) == 4)
    # What was refused is handed on all the same, so that it is acknowledged.
    assert world.refused == [EntryId(stream("a"), f"{number}-0") for number in range(4)]


async def test_a_stream_with_one_event_among_what_is_refused_has_no_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_group, "PENALTY_SECONDS", 1000)
    world = World()
    world.reader.add(no_event("a", 1), event("a", 2), event("a", 3))
    world.ready("a")
    async with world.running():
        await eventually(lambda: len(world.handed) == 2)
    assert world.refused == [EntryId(stream("a"), "1-0")]


async def test_what_is_refused_is_counted_by_its_reason_and_logged_once_for_a_while() -> None:
    def counted() -> float:
        labels = {"consumer": "cr", "reason": "kind"}
        return REGISTRY.get_sample_value("taskflow_events_refused_total", labels) or 0.0

    before, world = counted(), World()
    world.reader.add(*(no_event("a", number, Refusal.KIND) for number in range(2)))
    world.ready("a")
    async with world.running():
        await eventually(lambda: len(world.refused) == 2)
    assert counted() == before + 2
    assert world.group._sampled == {"a": world.clock.now}


async def test_after_an_outage_what_was_read_meanwhile_comes_first() -> None:
    world = World()
    world.reader.add(event("a", 1))
    world.reader.down = 3
    world.ready("a", "b")
    async with world.running():
        await eventually(lambda: world.handed)
    # The answer may have been lost on its way, and its entries are pending.
    assert world.reader.again == [stream("a"), stream("b")] * 3
    assert numbers(world.handed) == [("a", "1-0")]


async def test_a_batch_that_could_not_be_handled_comes_again_whole() -> None:
    world = World()
    world.failures = [Unavailable("history database: away"), Unavailable("history database: away")]
    world.reader.add(event("a", 1), no_event("a", 2))
    world.ready("a")
    async with world.running():
        await eventually(lambda: len(world.batches) == 3)
    assert world.batches[0] == world.batches[1] == world.batches[2]


async def test_nothing_is_read_while_this_process_is_not_sure_to_be_the_leader() -> None:
    sure = asyncio.Event()
    world = World(may_read=sure.wait)
    world.reader.add(event("a", 1))
    world.ready("a")
    async with world.running():
        await asyncio.sleep(0.01)
        assert world.reader.reads == []
        sure.set()
        await eventually(lambda: world.handed)
        sure.clear()
        # It waits for something already, and asks before each further read.
        await asyncio.sleep(0.01)
        world.reader.add(*(event("a", number) for number in range(2, 10)))
        world.ready("a")
        await asyncio.sleep(0.02)
        assert len(world.reader.reads) <= 2


async def test_a_broken_stream_is_left_to_the_monitor_and_hinders_no_other() -> None:
    world = World()
    world.reader.problems[stream("a")] = "WRONGTYPE"
    world.reader.add(event("b", 1))
    world.ready("a", "b")
    async with world.running():
        await eventually(lambda: world.handed)
        await asyncio.sleep(0.01)
    assert sum(stream("a") in read for read in world.reader.reads) == 1
    assert world.group.caught_up("a") == 0.0
    assert world.group.caught_up("b") == world.clock.now


async def test_all_was_handed_on_that_was_there_when_the_last_read_began() -> None:
    world = World()
    world.reader.add(event("a", 1), event("a", 2), event("a", 3))
    handling = asyncio.Event()

    async def slow(*_: object) -> None:
        world.clock.now += 10
        handling.set()

    world.group._handle = slow
    assert world.group.caught_up("a") == 0.0
    world.ready("a")
    async with world.running():
        await handling.wait()
        assert world.group.caught_up("a") == 0.0
        await eventually(lambda: world.group.caught_up("a"))
    # What came while the second batch was handled may be unread.
    assert world.group.caught_up("a") == 1010.0
    assert world.group.caught_up("b") == 0.0
