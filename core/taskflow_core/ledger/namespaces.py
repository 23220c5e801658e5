"""Namespaces that have keys in Redis."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable

import redis.asyncio
from redis.exceptions import RedisError

from taskflow_core.domain import naming
from taskflow_core.domain.naming import keys_of
from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.ledger.connect import redis_errors
from taskflow_core.ledger.scripting import BatchScript


class Namespaces:
    """Begins the life of a namespace's keys before anything is entered there, so that data that is missing later was
    lost.

    Args:
        client: connection.
        began: called with namespaces whose keys were made now: they are new, or Redis lost what they had.
        unmirrored: called with namespaces whose streams began, until `mirrored` says that the history has seen to it.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._open = BatchScript(client, "open")
        self._known: dict[str, None] = {}
        self._marks: dict[str, str] = {}
        self.began: list[Callable[[Collection[str]], None]] = []
        self.unmirrored: list[Callable[[Collection[str]], None]] = []

    @property
    def known(self) -> Collection[str]:
        """All that were opened."""
        return self._known.keys()

    async def load(self) -> None:
        """Open all that an earlier operator knew. Raises `Unavailable`."""
        with redis_errors():
            found = await self._client.smembers(naming.KEY_NAMESPACES)
        await self.ensure(map(str, found))

    async def ensure(self, names: Iterable[str]) -> None:
        """Open those that are not open yet. Raises `Unavailable`."""
        new = sorted({name for name in names if name not in self._known})
        if new:
            with redis_errors():
                await self._client.sadd(naming.KEY_NAMESPACES, *new)
            await self.open(new)

    async def open(self, names: Collection[str]) -> None:
        """Begin the life of the keys of those that have none. Raises `Unavailable`."""
        epoch = secrets.token_hex(8)
        calls = []
        for name in names:
            keys = keys_of(name)
            calls.append(([keys.epoch, keys.events, keys.notes, keys.unmirrored], [epoch]))
        broken: list[str] = []
        began: list[str] = []
        unmirrored: list[str] = []
        for name, answer in zip(names, await self._open.call(calls), strict=True):
            self._known[name] = None
            if isinstance(answer, RedisError):
                broken.append(name)
                continue
            if answer[0]:
                began.append(name)
            if answer[1]:
                self._marks[name] = str(answer[1])
                unmirrored.append(name)
        if unmirrored:
            _tell(self.unmirrored, unmirrored)
        if began:
            _tell(self.began, began)
        if broken:
            raise Unavailable(f"Redis: the keys of {', '.join(broken[:5])} are not of our types", Dependency.REDIS)

    async def reset(self, name: str) -> None:
        """Delete the streams of a namespace and open it again: what is missing is made anew from its Tasks.

        Raises:
            Unavailable: Redis does not answer.
        """
        keys = keys_of(name)
        with redis_errors():
            await self._client.unlink(keys.events, keys.notes, keys.epoch)
        await self.open([name])

    async def mark(self, name: str) -> None:
        """The history lacks what a stream lost; it is told, also after a restart. Raises `Unavailable`."""
        value = secrets.token_hex(8)
        with redis_errors():
            await self._client.set(keys_of(name).unmirrored, value)
        self._marks[name] = value
        _tell(self.unmirrored, [name])

    async def mirrored(self, marks: Collection[tuple[str, str]]) -> None:
        """The history has seen to these marks (namespace, mark). Raises `Unavailable`."""
        with redis_errors():
            for name, value in marks:
                # A later mark stays. Only this process makes any, so nothing comes in between.
                if self._marks.get(name) == value:
                    await self._client.delete(keys_of(name).unmirrored)
                    self._marks.pop(name, None)

    def marks_of(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """The marks that are there now."""
        return [(name, self._marks[name]) for name in names if name in self._marks]


def _tell(listeners: Iterable[Callable[[Collection[str]], None]], names: Collection[str]) -> None:
    for listener in listeners:
        listener(names)
