"""The history, as the controller of schedules asks it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, cast

import pytest

from taskflow_core.domain.events import Stream
from taskflow_core.errors import Unavailable
from taskflow_operator.assembly.schedules import CaughtUpHistory


class Group:
    def __init__(self) -> None:
        self.read_until: dict[str, float] = {}
        self.woken: list[str] = []
        self.reader = self

    def streams_of(self, namespace: str) -> list[str]:
        return [namespace]

    def ready(self, streams: Iterable[Stream]) -> None:
        self.woken += cast("Any", streams)

    def caught_up(self, namespace: str) -> float:
        return self.read_until.get(namespace, 0.0)


class Database:
    async def ran(self, namespace: str, names: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(names, namespace)


async def test_nothing_is_said_before_the_streams_of_the_time_before_were_read() -> None:
    group, namespaces = Group(), type("Namespaces", (), {"known": {"team-a"}})()
    history = CaughtUpHistory(cast("Any", Database()), cast("Any", group), cast("Any", namespaces), lambda: 100.0)
    with pytest.raises(Unavailable, match="still reading"):
        await history.ran("team-a", ["x"])
    assert group.woken == ["team-a"]
    group.read_until["team-a"] = 100.5
    assert await history.ran("team-a", ["x"]) == {"x": "team-a"}
    # It has no streams, so there is nothing to wait for.
    assert await history.ran("team-b", ["x"]) == {"x": "team-b"}
