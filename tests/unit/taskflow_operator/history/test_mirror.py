from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from taskflow_core.domain.events import Event
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_core.kube.client import Page
from taskflow_operator.history import mirror
from taskflow_operator.history.mirror import HistoryMirror
from tests.unit.taskflow_operator.fakes import at_once, eventually


class FakeHistory:
    """A database that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.mirrors = 0

    async def apply_events(self, events: Sequence[Event]) -> None:
        raise AssertionError("nothing is read here")

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        if self.away:
            raise Unavailable("history database: away")
        self.mirrors += 1


class Lists:
    """Lists of no Task, each as slow as the test likes."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def pages(self) -> AsyncIterator[Page]:
        self.begun += 1
        await self.go_on.wait()
        yield Page([], "9")


def store(history: FakeHistory, lists: Lists) -> HistoryMirror:
    return HistoryMirror(history, cast("Any", None), lists.pages, at_once)


async def test_who_asked_for_a_mirror_hears_of_it_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.001)
    history, lists = FakeHistory(), Lists()
    history.away = True
    mirroring = store(history, lists)
    loop = asyncio.create_task(mirroring._mirror_when_wanted())
    told = mirroring.mirror_again("test")
    await eventually(lambda: lists.begun > 2)
    assert not told.done()
    history.away = False
    await asyncio.wait_for(told, 5)
    loop.cancel()


async def test_who_asks_while_a_list_is_read_waits_for_the_next() -> None:
    history, lists = FakeHistory(), Lists()
    lists.go_on.clear()
    mirroring = store(history, lists)
    loop = asyncio.create_task(mirroring._mirror_when_wanted())
    first = mirroring.mirror_again("test")
    await eventually(lambda: lists.begun == 1)
    second = mirroring.mirror_again("test")
    lists.go_on.set()
    await asyncio.wait_for(first, 5)
    await asyncio.wait_for(second, 5)
    assert history.mirrors == 2
    loop.cancel()
