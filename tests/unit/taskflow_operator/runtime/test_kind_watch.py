from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from taskflow_core.domain.phases import OPEN_SELECTOR
from taskflow_core.errors import Conflict, TaskflowError, Unavailable
from taskflow_operator.runtime import kind_watch
from taskflow_operator.runtime.kind_watch import KindWatch
from tests.unit.taskflow_operator.fakes import FakeClock

Batch = Sequence[dict[str, Any]]


def event(kind: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": name, "uid": name, "resourceVersion": version}}}


@dataclass
class FakeObserver:
    """Lists give versions in order; what is named `bad` cannot be handled."""

    lists: list[str | TaskflowError] = field(default_factory=lambda: ["1"])
    seen: list[tuple[str, bool]] = field(default_factory=list)

    async def list(self) -> str:
        answer = self.lists.pop(0)
        if isinstance(answer, TaskflowError):
            raise answer
        return answer

    def observe(self, body: dict[str, Any], *, gone: bool = False) -> None:
        if body["metadata"]["name"] == "bad":
            raise KeyError("spec")
        self.seen.append((body["metadata"]["name"], gone))


@dataclass
class FakeServer:
    """Each watch gets the next of these: batches, then its end; the last watch hangs."""

    clock: FakeClock
    watches: list[Sequence[Batch | TaskflowError]]
    asked: list[str] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, path: str, version: str, selector: str, labels: str = "") -> AsyncIterator[Batch]:
        assert "status.phase!=Succeeded" in selector
        self.asked.append(version)
        if not self.watches:
            yield ()
            self.idle.set()
            await asyncio.Event().wait()
        for batch in self.watches.pop(0):
            if isinstance(batch, TaskflowError):
                raise batch
            self.clock.now += 1
            yield batch


class Running:
    """The watch over fakes, run until the server has nothing more to say."""

    def __init__(
        self, *watches: Sequence[Batch | TaskflowError], lists: list[str | TaskflowError] | None = None
    ) -> None:
        self.clock = FakeClock()
        self.observer = FakeObserver(lists or ["1"])
        self.server = FakeServer(self.clock, list(watches))
        self.pauses: list[float] = []
        self.watch = KindWatch(
            cast("Any", self.server),
            "tasks",
            cast("Any", self.observer),
            selector=OPEN_SELECTOR,
            clock=self.clock,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds

    async def until_idle(self) -> None:
        job = asyncio.create_task(self.watch.run())
        idle = asyncio.create_task(self.server.idle.wait())
        await asyncio.wait([job, idle], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert idle.done(), job
        job.cancel()


async def test_events_come_in_order_and_a_watch_that_ended_in_time_goes_on_where_it_was() -> None:
    run = Running(
        [(), [event("ADDED", "a", "5"), event("DELETED", "a", "6")], [event("BOOKMARK", "", "90")]],
        [(), (), [event("MODIFIED", "b", "91")]],
    )
    await run.until_idle()
    assert run.observer.seen == [("a", False), ("a", True), ("b", False)]
    assert run.server.asked == ["1", "90", "91"]
    assert run.pauses == []


async def test_one_poisoned_object_stops_nothing() -> None:
    run = Running([(), [event("ADDED", "bad", "2"), event("ADDED", "good", "3")], ()])
    with capture_logs() as logs:
        await run.until_idle()
    assert run.observer.seen == [("good", False)]
    assert [line["uid"] for line in logs if line["event"] == "unexpected"] == ["bad"]


async def test_after_an_error_it_goes_on_where_it_was_and_waits_longer_each_time() -> None:
    run = Running([(), [event("ADDED", "a", "5")], Unavailable("cut")], *[[Unavailable("503")] for _ in range(9)])
    await run.until_idle()
    assert run.server.asked == ["1", *["5"] * 10]
    assert run.pauses[0] <= kind_watch.FIRST_PAUSE
    assert kind_watch.LONGEST_PAUSE / 2 <= run.pauses[-1] <= kind_watch.LONGEST_PAUSE


async def test_after_a_watch_that_went_well_the_next_trouble_is_met_with_the_first_pause_again() -> None:
    bad = [[Unavailable("503")] for _ in range(6)]
    run = Running(*bad, [(), (), Unavailable("cut")], [(), (), Unavailable("cut")])
    await run.until_idle()
    assert run.pauses[5] > 4 * kind_watch.FIRST_PAUSE
    assert max(run.pauses[6:]) <= kind_watch.FIRST_PAUSE


async def test_what_the_server_forgot_is_listed_anew() -> None:
    run = Running([(), Conflict("410: too old")], lists=["1", Unavailable("starting"), "70"])
    await run.until_idle()
    assert run.server.asked == ["1", "70"]
    assert run.observer.lists == []


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_pause() -> None:
    run = Running([], [], [])
    await run.until_idle()
    assert len(run.pauses) == 3


async def test_it_says_how_long_there_has_been_no_watch() -> None:
    run = Running([(), Unavailable("cut")], [Unavailable("503")])
    downs: list[float] = []
    inner = run._sleep

    async def sleep(seconds: float) -> None:
        await inner(seconds)
        downs.append(run.watch.down_seconds)

    run.watch._sleep = sleep
    await run.until_idle()
    assert downs == pytest.approx([run.pauses[0], sum(run.pauses)])
    assert run.watch.down_seconds == 0


async def test_after_a_long_outage_what_the_server_forgot_is_listed_soon_but_not_again_and_again() -> None:
    bad = [[Unavailable("503")] for _ in range(6)]
    forgot = [[Conflict("410: too old")] for _ in range(3)]
    run = Running(*bad, *forgot, lists=["1", *map(str, range(70, 73))])
    await run.until_idle()
    first, *more = run.pauses[6:]
    assert first <= kind_watch.FIRST_PAUSE
    assert more[-1] > kind_watch.FIRST_PAUSE
