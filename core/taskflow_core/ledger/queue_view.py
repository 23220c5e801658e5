"""The position of an attempt in its queue."""

from __future__ import annotations

import json
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from taskflow_core.domain import naming
from taskflow_core.domain.message import entered_ms
from taskflow_core.ledger.connect import redis_errors
from taskflow_core.ledger.scripting import BatchScript

_WINDOW = 32
"""Messages looked at on both sides of where one should be: some entered in the same millisecond, some were taken
meanwhile."""
_MAX_BYTES = 64 * 1024
"""A longer message is none of ours."""


@dataclass(frozen=True)
class QueuePosition:
    """Where an attempt stands in its queue."""

    ahead: int
    """Messages that are served before it."""
    exact: bool
    """Its message was found there; else it is where it should be by its age, for example in a worker's hands."""


class QueueView:
    """Positions of attempts, for display. Reads only, with the rights of `acl.api_rules`.

    A message is found by its age: a list is in the order of entry but for what was published again, and the ledger
    knows when an attempt was entered. So at 100,000 messages it takes 17 looks, each at one message.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._peek = BatchScript(client, "peek", read_only=True)

    async def position(self, namespace: str, queue: str, priority: int, uid: str, attempt: int) -> QueuePosition | None:
        """Its position; None if it is not in the ledger, because it is not entered yet or a worker took it.

        Raises:
            Unavailable: Redis does not answer.
        """
        own = naming.broker_list(namespace, queue, priority)
        lists = naming.queue_lists(namespace, [queue])
        member = naming.member(uid, attempt)
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.zscore(naming.keys_of(namespace).ledger, member)
                for name in lists:
                    pipe.llen(name)
                score, *lengths = await pipe.execute()
            if score is None:
                return None
        before = sum(lengths[: lists.index(own)])
        place = await self._search(own, lengths[lists.index(own)], int(score))
        exact = await self._look_around(own, place, member)
        return QueuePosition(before + (place if exact is None else exact), exact is not None)

    async def _search(self, name: str, length: int, entered: int) -> int:
        """How many messages of the list are older. Served, and oldest, is the last one."""
        low, high = 0, length
        while low < high:
            middle = (low + high) // 2
            raw = await self._messages(name, -1 - middle, -1 - middle)
            # There is none any more where others were taken meanwhile.
            if raw and (entered_ms(raw[0]) or 0) < entered:
                low = middle + 1
            else:
                high = middle
        return low

    async def _look_around(self, name: str, place: int, member: str) -> int | None:
        first = max(place - _WINDOW, 0)
        found = await self._messages(name, -1 - place - _WINDOW, -1 - first)
        for offset, raw in enumerate(reversed(found)):
            if _id(raw) == member:
                return first + offset
        return None

    async def _messages(self, name: str, first: int, last: int) -> list[str]:
        (answer,) = await self._peek.call([([name], [_MAX_BYTES, first, last])])
        with redis_errors():
            if isinstance(answer, RedisError):
                raise answer
        return list(answer[0])


def _id(raw: str) -> str:
    try:
        return str(json.loads(raw)["headers"]["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
