"""Runs one Lua script on many sets of keys in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError
from redis.lock import Lock

from taskflow_core.ledger.connect import redis_errors, script

Call = tuple[Sequence[str], Sequence[str | int]]
"""Keys and arguments of one call."""
WORKER_SCRIPTS = ("claim", "finish", "heartbeat", "surrender", "presence")
"""What workers run, besides what kombu does."""


def wrong_type(error: RedisError) -> bool:
    """Whether a key is at fault. Any other error is Redis' own, and may pass."""
    return "WRONGTYPE" in str(error)


def stream_full(error: RedisError) -> bool:
    """Whether a stream takes nothing more, because its last id is the greatest."""
    return "exhausted the last possible ID" in str(error)


class WorkerScripts:
    """The scripts of workers, whose logins may load none: a script could run for ever.

    Args:
        client: connection that may load scripts.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        # By the last one, kombu gives back the lock under which it restores messages.
        sources = [*map(script, WORKER_SCRIPTS), Lock.LUA_RELEASE_SCRIPT]
        self._sources = {_digest(source): source for source in sources}

    async def load(self) -> None:
        """Load those that Redis does not have; it forgets all of them when it restarts.

        Raises:
            Unavailable: Redis does not answer.
        """
        with redis_errors():
            known = await self._client.script_exists(*self._sources)
            for source, there in zip(self._sources.values(), known, strict=True):
                if not there:
                    await self._client.script_load(source)


class BatchScript:
    """A script that is called for many namespaces at a time. One that fails does not stop the others.

    redis-py's own scripts ask in every pipeline whether Redis has them; this one loads itself when Redis does not.

    Args:
        client: connection.
        name: of the file in `lua`.
        read_only: it only reads, and its caller may do no more.
    """

    def __init__(self, client: redis.asyncio.Redis, name: str, *, read_only: bool = False) -> None:
        self._client = client
        self._command = "EVALSHA_RO" if read_only else "EVALSHA"
        self._source = script(name)
        self._sha = _digest(self._source)

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        """The answers, in order. What Redis refused is answered by its error, which is not raised.

        Raises:
            Unavailable: Redis does not answer; nobody knows what it did.
        """
        if not calls:
            return []
        with redis_errors():
            answers = await self._round_trip(calls)
            missing = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if missing:
                await self._client.script_load(self._source)
                again = await self._round_trip([calls[place] for place in missing])
                for place, answer in zip(missing, again, strict=True):
                    answers[place] = answer
        return answers

    async def _round_trip(self, calls: Sequence[Call]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for keys, arguments in calls:
                pipe.execute_command(self._command, self._sha, len(keys), *keys, *arguments)
            return await pipe.execute(raise_on_error=False)


def _digest(source: str) -> str:
    """By which Redis knows a script."""
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
