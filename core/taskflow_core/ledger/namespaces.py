"""Namespaces that have keys in Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping

import redis.asyncio
from redis.exceptions import RedisError

from taskflow_core.domain import naming
from taskflow_core.domain.naming import keys_of
from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.ledger.connect import redis_errors
from taskflow_core.ledger.scripting import BatchScript, wrong_type


class Namespaces:
    """Begins the life of a namespace's keys before anything is entered there, so that data that is missing later was
    lost.

    Args:
        client: connection.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._open = BatchScript(client, "open")
        self._known: dict[str, None] = {}
        self._marks: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self.opened: list[Callable[[Collection[str]], object]] = []
        """Called with namespaces that are open now."""
        self.lost: list[Callable[[Collection[str]], object]] = []
        """Called with namespaces that lost what they had in Redis."""
        self.unmirrored: list[Callable[[Collection[str]], object]] = []
        """Called with namespaces whose history may lack something, until `mirrored`."""

    @property
    def known(self) -> Collection[str]:
        """All that were opened."""
        return self._known.keys()

    async def load(self) -> None:
        """Open all that an earlier operator knew. Raises `Unavailable`."""
        with redis_errors():
            found = await self._client.smembers(naming.KEY_NAMESPACES)
        await self._open_all(sorted(map(str, found)), registered=set(map(str, found)))

    async def ensure(self, names: Iterable[str]) -> None:
        """Open those that are not open yet. Raises `Unavailable`."""
        wanted = set(names)
        if wanted <= self._known.keys():
            return
        async with self._changing:
            new = sorted(name for name in wanted if name not in self._known)
            with redis_errors():
                async with self._client.pipeline(transaction=False) as pipe:
                    for name in new:
                        pipe.sadd(naming.KEY_NAMESPACES, name)
                    added = await pipe.execute()
            registered = {name for name, fresh in zip(new, added, strict=True) if not fresh}
            await self._open_all(new, registered=registered)

    async def forget(self, names: Collection[str]) -> None:
        """Delete what is left of namespaces that have not been used for long. Raises `Unavailable`."""
        async with self._changing:
            for name in names:
                self._known.pop(name, None)
                self._marks.pop(name, None)
            with redis_errors():
                await self._client.srem(naming.KEY_NAMESPACES, *names)
            await self._clear(names)

    async def data_lost(self, names: Iterable[str]) -> None:
        """Redis is new or lost everything: open these and all that were open again. Raises `Unavailable`."""
        every = sorted({*self._known, *names})
        if every:
            with redis_errors():
                await self._client.sadd(naming.KEY_NAMESPACES, *every)
        await self._open_all(every, registered=set(every))

    async def _open_all(self, names: Collection[str], registered: Collection[str]) -> None:
        """Begin the life of the keys of those that have none; what was registered before had some."""
        epoch = secrets.token_hex(8)
        calls = []
        for name in names:
            keys = keys_of(name)
            calls.append(([keys.epoch, keys.events, keys.notes, keys.unmirrored], [epoch]))
        answers = dict(zip(names, await self._open.call(calls), strict=True))
        failed = {name: answer for name, answer in answers.items() if isinstance(answer, RedisError)}
        lost: list[str] = []
        unmirrored: list[str] = []
        for name in sorted(answers.keys() - failed.keys()):
            began, mark = answers[name]
            self._known[name] = None
            if began and name in registered:
                lost.append(name)
            if mark:
                self._marks[name] = str(mark)
                unmirrored.append(name)
        _tell(self.opened, [name for name in names if name not in failed])
        if unmirrored:
            _tell(self.unmirrored, unmirrored)
        if lost:
            _tell(self.lost, lost)
        if failed:
            await self._failed(failed)

    async def _failed(self, failed: Mapping[str, RedisError]) -> None:
        """Raises `Unavailable`. Only keys that are at fault themselves are deleted."""
        for error in failed.values():
            if not wrong_type(error):
                raise Unavailable(f"Redis: {error}", Dependency.REDIS) from error
        await self._clear(failed)
        raise Unavailable(f"Redis: the keys of {', '.join(sorted(failed)[:5])} were not of our types", Dependency.REDIS)

    async def reset(self, name: str) -> bool:
        """Delete the broken streams of a namespace and open it again: what is missing is made anew from its Tasks.

        False, and nothing is deleted, if they were only lost with everything else: then there may be entries already of
        workers that went on.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors():
            begun = bool(await self._client.exists(keys_of(name).epoch))
        if begun:
            await self._clear([name])
        await self._open_all([name], registered=[name])
        return begun

    async def _clear(self, names: Iterable[str]) -> None:
        with redis_errors():
            for name in names:
                keys = keys_of(name)
                await self._client.unlink(keys.events, keys.notes, keys.epoch, keys.unmirrored)

    async def trimmed(self, name: str, *, unapplied: bool) -> None:
        """A stream lost entries that were not read: the history has to catch up, also after a restart.

        Args:
            name: of the namespace.
            unapplied: they were not applied to the Tasks either.

        Raises:
            Unavailable: Redis does not answer.
        """
        value = secrets.token_hex(8)
        with redis_errors():
            await self._client.set(keys_of(name).unmirrored, value)
        self._marks[name] = value
        _tell(self.unmirrored, [name])
        if unapplied:
            _tell(self.lost, [name])

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


def _tell(listeners: Iterable[Callable[[Collection[str]], object]], names: Collection[str]) -> None:
    for listener in listeners:
        listener(names)
