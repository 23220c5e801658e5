from __future__ import annotations

import asyncio
from typing import Any, Self, cast

import pytest
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import ResponseError

from taskflow_core.errors import Unavailable
from taskflow_core.ledger.pipelining import PipelinedClient, refusals


class Pipe:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._commands: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        self._server.trips.append(len(self._commands))
        await self._server.answers.wait()
        if self._server.away:
            raise RedisAway("gone")
        return [ResponseError("refused") if each[0] == "BAD" else each[1] for each in self._commands]


class Server:
    def __init__(self) -> None:
        self.trips: list[int] = []
        self.answers = asyncio.Event()
        self.away = False

    def pipeline(self, *, transaction: bool) -> Pipe:
        assert not transaction
        return Pipe(self)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_while_a_round_trip_is_under_way_goes_with_the_next() -> None:
    server = Server()
    together = PipelinedClient(cast("Any", server), 5.0)
    first = asyncio.create_task(together.ask(("GET", "a")))
    await settled()
    others = [asyncio.create_task(together.ask(("GET", name), ("GET", name * 2))) for name in "bcd"]
    await settled()
    server.answers.set()
    assert await first == ["a"]
    assert await asyncio.gather(*others) == [["b", "bb"], ["c", "cc"], ["d", "dd"]]
    assert server.trips == [1, 6]
    assert await together.ask(("GET", "e")) == ["e"]


async def test_who_gives_up_takes_no_others_answer() -> None:
    server = Server()
    together = PipelinedClient(cast("Any", server), 5.0)
    gone, stays = (asyncio.create_task(together.ask(("GET", name))) for name in "ab")
    await settled()
    gone.cancel()
    server.answers.set()
    assert await stays == ["b"]


async def test_a_redis_that_is_away_is_away_for_all_who_wait() -> None:
    server = Server()
    together = PipelinedClient(cast("Any", server), 5.0)
    server.away = True
    first = asyncio.create_task(together.ask(("GET", "a")))
    await settled()
    second = asyncio.create_task(together.ask(("GET", "b")))
    await settled()
    server.answers.set()
    for each in (first, second):
        with pytest.raises(Unavailable, match="gone"):
            await each
    assert server.trips == [1]
    server.away = False
    assert await together.ask(("GET", "c")) == ["c"]


async def test_one_that_says_nothing_is_away_in_time() -> None:
    together = PipelinedClient(cast("Any", Server()), 0.05)
    with pytest.raises(Unavailable, match="no answer"):
        await together.ask(("GET", "a"))


async def test_a_refused_command_is_its_own_error_and_nobody_elses() -> None:
    server = Server()
    server.answers.set()
    together = PipelinedClient(cast("Any", server), 5.0)
    good, bad = await asyncio.gather(together.ask(("GET", "a")), together.ask(("BAD", "b")))
    assert good == ["a"]
    with pytest.raises(Unavailable, match="refused"):
        refusals(bad)
