from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from taskflow_core.domain.events import Origin, Stream
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.stream import GROUPS, Standing, stream_key
from taskflow_operator.runtime import stream_monitor
from taskflow_operator.runtime.pauses import FREE
from taskflow_operator.runtime.stream_monitor import ALL_LOOKS, AT_ONCE, TRIM_LOOKS, StreamMonitor
from tests.builders import NOW_MS
from tests.unit.taskflow_operator.fakes import eventually


def stream(namespace: str, origin: Origin = Origin.WORKERS) -> Stream:
    return Stream(namespace, origin)


class Reader:
    def __init__(self, group: str) -> None:
        self.group = group
        self.standings: dict[Stream, Standing] = {}
        self.looked: list[tuple[list[str], bool]] = []
        self.again: list[Stream] = []
        self.down = False

    def streams_of(self, namespace: str) -> tuple[Stream, ...]:
        return tuple(Stream(namespace, origin) for origin in GROUPS[self.group])

    def start_over(self, place: Stream) -> None:
        self.again.append(place)

    async def look(self, namespaces: Iterable[str], now_ms: int, *, sizes: bool = False) -> list[Standing]:
        if self.down:
            raise Unavailable("Redis: down")
        names = list(namespaces)
        self.looked.append((names, sizes))
        streams = [each for name in names for each in self.streams_of(name)]
        return [self.standings.get(each, Standing(each)) for each in streams]


class Group:
    """Notes which streams it was woken for."""

    def __init__(self, name: str) -> None:
        self.reader = Reader(name)
        self.woken: list[Stream] = []

    def ready(self, streams: Iterable[Stream]) -> None:
        self.woken += streams

    async def run(self) -> None:
        await asyncio.Event().wait()


class Registry:
    """Namespaces as the registry knows them."""

    def __init__(self, *names: str) -> None:
        self.known = list(names)
        self.gaps: list[tuple[str, bool]] = []
        self.resets: list[str] = []
        self.broken = True

    async def trimmed(self, name: str, *, unapplied: bool) -> None:
        self.gaps.append((name, unapplied))

    async def reset(self, name: str) -> bool:
        self.resets.append(name)
        return self.broken


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.registry, self.seconds = Registry(*names), 0.0
        self.cr, self.pg = Group("cr"), Group("pg")
        self.active: Collection[str] = names
        self.trimmed: list[list[Stream]] = []
        self.aside: list[tuple[str, str]] = []
        monkeypatch.setattr(stream_monitor, "trim_read", self._trim)
        self.monitor = StreamMonitor(
            cast("Any", self.registry),
            cast("Any", (self.cr, self.pg)),
            lambda: self.active,
            self._now,
            cast("Any", None),
            clock=lambda: self.seconds,
        )
        self.monitor.set_aside.append(lambda name, why: self.aside.append((name, why)))

    async def _now(self) -> int:
        return NOW_MS

    async def _trim(self, _: object, streams: Iterable[Stream], now_ms: int) -> None:
        self.trimmed.append(list(streams))

    def stand(self, group: Group, place: Stream, **fields: Any) -> None:
        group.reader.standings[place] = Standing(place, **fields)

    async def look(self) -> None:
        """Look once, and note only what this look led to."""
        for group in (self.cr, self.pg):
            group.woken, group.reader.again = [], []
        await self.monitor.look()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Two namespaces that were looked at once."""
    world = World(monkeypatch, "a", "b")
    await world.look()
    return world


async def test_the_streams_of_a_new_namespace_are_read_and_watched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a")
    await world.look()
    assert world.cr.woken == [stream("a")]
    assert world.pg.woken == [stream("a"), stream("a", Origin.OPERATOR)]
    assert set(world.monitor._changes._keys) == {"tf:{a}:ev", "tf:{a}:op"}
    world.registry.known.append("b")
    await world.look()
    assert world.cr.woken == [stream("b")]
    assert len(world.monitor._changes._keys) == 4


async def test_a_stream_that_changed_wakes_its_readers_and_no_other(world: World) -> None:
    world.cr.woken, world.pg.woken = [], []
    world.monitor._changed([stream_key(stream("a"))])
    assert (world.cr.woken, world.pg.woken) == ([stream("a")], [stream("a")])
    world.monitor._changed([stream_key(stream("b", Origin.OPERATOR)), "tf:{unknown}:ev"])
    assert (world.cr.woken, world.pg.woken[1:]) == ([stream("a")], [stream("b", Origin.OPERATOR)])


async def test_what_is_unread_wakes_its_reader_if_no_announcement_came(world: World) -> None:
    world.stand(world.cr, stream("b"), unread=1)
    await world.look()
    assert (world.cr.woken, world.pg.woken, world.cr.reader.again) == ([stream("b")], [], [])


async def test_what_is_pending_is_read_again_with_every_look_at_all(world: World) -> None:
    world.stand(world.cr, stream("a"), pending=3)
    for _ in range(ALL_LOOKS - 1):
        await world.look()
        assert (world.cr.woken, world.cr.reader.again) == ([], [])
    await world.look()
    assert (world.cr.woken, world.cr.reader.again) == ([stream("a")], [stream("a")])


async def test_namespaces_without_open_tasks_are_looked_at_less_often(world: World) -> None:
    world.active = ["b", "not opened yet"]
    for _ in range(ALL_LOOKS):
        await world.look()
    names = [names for names, _ in world.cr.reader.looked]
    assert names == [["a", "b"], *[["b"]] * (ALL_LOOKS - 1), ["a", "b"]]


async def test_streams_are_trimmed_and_measured_with_some_looks(world: World) -> None:
    for _ in range(TRIM_LOOKS):
        await world.look()
    assert [sizes for _, sizes in world.pg.reader.looked] == [True, *[False] * (TRIM_LOOKS - 1), True]
    assert len(world.trimmed) == 2
    assert set(world.trimmed[0]) == {stream(name, origin) for name in "ab" for origin in Origin}


async def test_many_namespaces_are_looked_at_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, *(f"n{number:04}" for number in range(2 * AT_ONCE + 1)))
    await world.look()
    assert [len(names) for names, _ in world.cr.reader.looked] == [AT_ONCE, AT_ONCE, 1]


async def test_a_gap_is_told_once_until_it_is_gone(world: World) -> None:
    world.stand(world.cr, stream("a"), gap=True, unread=5)
    for _ in range(3):
        await world.look()
        # The rest of the stream is read on.
        assert world.cr.woken == [stream("a")]
    assert world.registry.gaps == [("a", True)]
    world.stand(world.cr, stream("a"))
    await world.look()
    world.stand(world.cr, stream("a"), gap=True)
    await world.look()
    assert world.registry.gaps == [("a", True), ("a", True)]


async def test_a_gap_of_the_history_loses_nothing_of_the_tasks(world: World) -> None:
    world.stand(world.pg, stream("a", Origin.OPERATOR), gap=True)
    world.stand(world.pg, stream("a"), gap=True)
    await world.look()
    assert world.registry.gaps == [("a", False)]


async def test_a_broken_stream_is_made_anew_and_the_others_notice_nothing(world: World) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("taskflow_namespaces_set_aside_total", {"namespace": "a"}) or 0.0

    before = counted()
    # Both groups see it.
    world.stand(world.cr, stream("a"), problem="it cannot be read: WRONGTYPE")
    world.stand(world.pg, stream("a"), problem="it cannot be read: WRONGTYPE")
    await world.look()
    assert world.registry.resets == ["a"]
    assert world.aside == [("a", "it cannot be read: WRONGTYPE")]
    assert world.cr.woken == [stream("a")]
    assert world.pg.woken == [stream("a"), stream("a", Origin.OPERATOR)]
    assert world.registry.gaps == []
    assert counted() == before + 1


async def test_a_namespace_that_only_lost_its_data_is_not_set_aside(world: World) -> None:
    world.registry.broken = False
    world.stand(world.cr, stream("a"), problem="its consumer group is gone")
    await world.look()
    assert (world.registry.resets, world.aside, world.cr.woken) == (["a"], [], [stream("a")])


@pytest.mark.parametrize("how", [{"problem": "its consumer group is gone"}, {"gap": True}])
async def test_what_breaks_again_and_again_is_seen_to_more_and_more_rarely(world: World, how: dict[str, Any]) -> None:
    def seen_to() -> int:
        return len(world.registry.resets) + len(world.registry.gaps)

    for _ in range(300):
        for state in (how, {}):
            world.stand(world.cr, stream("a"), **state)
            await world.look()
            world.seconds += 1
    assert FREE < seen_to() < FREE + 20
    # A gap that is there for a moment is seen to all the same.
    world.stand(world.cr, stream("a"), gap=True)
    await world.look()
    world.stand(world.cr, stream("a"))
    world.seconds += 1000
    await world.look()
    assert world.registry.gaps[-1] == ("a", True)
    world.stand(world.cr, stream("b"), problem="its consumer group is gone")
    await world.look()
    assert world.registry.resets[-1] == "b"


async def test_a_namespace_has_everything_read_again_on_request(world: World) -> None:
    world.cr.woken, world.pg.woken = [], []
    world.monitor.read_again("b")
    assert world.cr.woken == [stream("b")]
    assert world.pg.woken == [stream("b"), stream("b", Origin.OPERATOR)]


async def test_a_lag_is_that_of_all_namespaces_also_of_those_not_looked_at_now(world: World) -> None:
    world.active = ["a"]
    world.stand(world.cr, stream("b"), pending=2, age_ms=9000)
    for _ in range(ALL_LOOKS):
        await world.look()
    world.stand(world.cr, stream("a"), unread=1, age_ms=3000)
    await world.look()
    lag = world.monitor.lags["cr"]
    assert (lag.group, lag.entries, lag.seconds) == ("cr", 3, 9.0)
    assert world.monitor.lags["pg"].entries == 0


async def test_an_outage_is_outlived_by_those_who_look_and_listen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_monitor, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(stream_monitor, "RETRY_SECONDS", 0.001)
    runs: list[int] = []

    async def run() -> None:
        runs.append(1)
        raise Unavailable("Redis: down")

    monkeypatch.setattr(world.monitor._changes, "run", run)
    world.cr.reader.down = True
    jobs = [asyncio.create_task(loop) for loop in world.monitor.loops()]
    await eventually(lambda: len(runs) > 2)
    before = len(world.cr.reader.looked)
    world.cr.reader.down = False
    await eventually(lambda: len(world.cr.reader.looked) > before)
    assert not any(job.done() for job in jobs)
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
