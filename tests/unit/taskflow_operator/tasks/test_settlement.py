from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from taskflow_core.domain.attempts import Attempt
from taskflow_core.domain.events import EventKind
from taskflow_core.errors import Unavailable
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks.settlement import Settlement


class Ledger:
    """Refuses a poisoned attempt, and everything while it is down."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.down = 0

    async def settle_all(self, attempts: Sequence[tuple[Attempt, EventKind]]) -> None:
        self.calls.append([attempt.uid for attempt, _ in attempts])
        if self.down:
            self.down -= 1
            raise Unavailable("Redis: down")
        if "poisoned" in self.calls[-1]:
            raise AssertionError("nobody thought of it")


def attempt(uid: str) -> Attempt:
    return Attempt(uid, 1, cast("Any", None))


async def test_what_ends_together_is_closed_in_one_round_trip() -> None:
    ledger = Ledger()
    settling_ = Settlement(cast("Any", ledger))
    await asyncio.gather(*(settling_.settle(attempt(str(number)), EventKind.SETTLED) for number in range(20)))
    assert ledger.calls == [[str(number) for number in range(20)]]


async def test_one_at_fault_is_told_to_its_own_and_the_others_are_closed() -> None:
    ledger = Ledger()
    settling_ = Settlement(cast("Any", ledger))
    names = ["a", "poisoned", "b"]
    answers = await asyncio.gather(
        *(settling_.settle(attempt(name), EventKind.SETTLED) for name in names), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [type(None), AssertionError, type(None)]
    assert ledger.calls == [names, *([name] for name in names)]
    await settling_.settle(attempt("c"), EventKind.SETTLED)
    assert ledger.calls[-1] == ["c"]


async def test_it_waits_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependency_health, "RETRY_SECONDS", 0.001)
    ledger = Ledger()
    ledger.down = 3
    await Settlement(cast("Any", ledger)).settle(attempt("a"), EventKind.DELETED)
    assert ledger.calls == [["a"]] * 4
