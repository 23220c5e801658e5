"""Runs one Lua script on many sets of keys in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from taskflow_core.ledger.connect import redis_errors, script

Call = tuple[Sequence[str], Sequence[str | int]]
"""Keys and arguments of one call."""


def wrong_type(error: RedisError) -> bool:
    """Whether a key is at fault. Any other error is Redis' own, and may pass."""
    return "WRONGTYPE" in str(error)


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
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

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
