"""Redis scripts that the operator runs for the chunks of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis.asyncio

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import Entered, Entry
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.naming import keys_of
from taskflow_core.ledger.connect import CLAIM_SECONDS, MAX_STREAM_LENGTH, redis_errors, script
from taskflow_core.ledger.namespaces import Namespaces

WAITING, SOURCE = "waiting", "source"
"""Fields of an array's key: what waits for another attempt, and where its items are. Every other one is a chunk, by its
place."""


CHUNK_TOMBSTONE_SECONDS = 300
"""As long as a former leader may still have an old view; shorter than that of a Task, since an array has very many
chunks."""


class ArrayKey(NamedTuple):
    """Names an array, and whose it is."""

    namespace: str
    uid: str


@dataclass(frozen=True)
class ChunkEntry:
    """A chunk to be entered."""

    attempt: int
    first: int
    note: str
    """What a later operator has to know of it."""

    @property
    def place(self) -> str:
        """Its name within the array."""
        return naming.place(self.attempt, self.first)


class ArrayLedger:
    """What arrays have handed out, beside the ledger. Every method raises `Unavailable`; all may be repeated.

    A chunk is entered, claimed, renewed, finished and settled by the scripts of any attempt. What is more is one hash
    of each array, changed in the same steps: while Redis keeps its data, an operator that starts knows each chunk in
    flight.
    """

    def __init__(self, client: redis.asyncio.Redis, namespaces: Namespaces) -> None:
        self._client = client
        self._namespaces = namespaces
        self._enqueue = client.register_script(script("enqueue"))
        self._settle = client.register_script(script("settle"))

    async def enqueue(
        self, array: ArrayKey, chunks: Sequence[ChunkEntry], waiting: str, *, again: bool = False
    ) -> list[Entered]:
        """Enter chunks, in one round trip; the answers are in the same order.

        Args:
            array: which.
            chunks: what is handed out.
            waiting: what waits for another attempt from now on.
            again: one that waits already is answered `NEW` with a fresh time, because its message was lost.
        """
        await self._namespaces.ensure([array.namespace])
        keys = keys_of(array.namespace)
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for chunk in chunks:
                    claim = keys.claim(array.uid, chunk.attempt, chunk.first)
                    await self._enqueue(
                        keys=[keys.ledger, claim, keys.notes, keys.array(array.uid)],
                        args=[
                            naming.member(array.uid, chunk.attempt, chunk.first),
                            array.uid,
                            chunk.place,
                            "",
                            MAX_STREAM_LENGTH,
                            int(again),
                            chunk.place,
                            chunk.note,
                            waiting,
                            CLAIM_SECONDS,
                        ],
                        client=pipe,
                    )
                answers = await pipe.execute()
        return [Entered(entry=Entry(state), time_ms=int(time_ms)) for state, time_ms in answers]

    async def settle(self, array: ArrayKey, places: Sequence[tuple[int, int]], waiting: str) -> None:
        """Close chunks (attempt, first), after what they did is stored."""
        keys = keys_of(array.namespace)
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for attempt, first in places:
                    member = naming.member(array.uid, attempt, first)
                    await self._settle(
                        keys=[
                            keys.ledger,
                            keys.claim_prefix + member,
                            keys.leases,
                            keys.notes,
                            keys.stops,
                            keys.once_prefix + member,
                            keys.array(array.uid),
                        ],
                        args=[
                            member,
                            array.uid,
                            naming.place(attempt, first),
                            EventKind.SETTLED.value,
                            "",
                            CHUNK_TOMBSTONE_SECONDS,
                            MAX_STREAM_LENGTH,
                            naming.place(attempt, first),
                            waiting,
                        ],
                        client=pipe,
                    )
                await pipe.execute()

    async def noted(self, array: ArrayKey) -> Mapping[str, str]:
        """The array's hash: notes of the chunks in flight by their places, and `WAITING`. Empty if Redis knows nothing
        of it.
        """
        with redis_errors():
            found: Any = await self._client.hgetall(keys_of(array.namespace).array(array.uid))
        return dict(found)

    async def note(self, array: ArrayKey, fields: Mapping[str, str]) -> None:
        """Write the hash anew, after Redis lost its data."""
        mapping: dict[Any, Any] = {**fields}
        with redis_errors():
            await self._client.hset(keys_of(array.namespace).array(array.uid), mapping=mapping)

    async def forget(self, array: ArrayKey) -> None:
        """The array has ended."""
        with redis_errors():
            await self._client.delete(keys_of(array.namespace).array(array.uid))
