"""Redis scripts that the operator runs for attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import Attempt, AttemptKey, Entered, Entry, State
from taskflow_core.domain.events import EventKind, Failure, TaskSnapshot
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.connect import CLAIM_SECONDS, MAX_STREAM_LENGTH, TOMBSTONE_SECONDS, redis_errors, script
from taskflow_core.ledger.stream import trim_read

EXPIRE_LIMIT = 500
"""Leases that one call expires."""
SERVE_SECONDS = 30
"""After this time without its operator, another one may use this Redis."""


class OperatorLedger:
    """What the operator does with the ledger. Every method raises `Unavailable` when Redis does not answer; all may be
    repeated.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._enqueue = client.register_script(script("enqueue"))
        self._settle = client.register_script(script("settle"))
        self._withdraw = client.register_script(script("withdraw"))
        self._expire = client.register_script(script("expire"))
        self._give_up = client.register_script(script("give_up"))
        self._stop = client.register_script(script("stop"))

    async def enqueue(self, attempts: Sequence[Attempt], *, again: bool = False) -> list[Entered]:
        """Enter attempts, in one round trip; the answers are in the same order.

        Args:
            attempts: what to enter.
            again: an attempt that waits already is answered `NEW` with a fresh time, because its message was lost.
        """
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for item in attempts:
                    await self._enqueue(
                        keys=[naming.KEY_LEDGER, naming.claim_key(item.uid, item.attempt), naming.KEY_STREAM],
                        args=[
                            naming.member(item.uid, item.attempt),
                            item.uid,
                            item.attempt,
                            _payload(item.snapshot),
                            MAX_STREAM_LENGTH,
                            int(again),
                        ],
                        client=pipe,
                    )
                answers = await pipe.execute()
        return [Entered(entry=Entry(state), time_ms=int(time_ms)) for state, time_ms in answers]

    async def settle(self, item: Attempt, kind: EventKind = EventKind.SETTLED) -> None:
        """Close an attempt, after its outcome stands in the resource (or the resource is gone)."""
        await self.settle_all([(item, kind)])

    async def settle_all(self, attempts: Sequence[tuple[Attempt, EventKind]]) -> None:
        """Close attempts as `settle` does, in one round trip."""
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for item, kind in attempts:
                    keys = [
                        naming.KEY_LEDGER,
                        naming.claim_key(item.uid, item.attempt),
                        naming.KEY_LEASES,
                        naming.KEY_STREAM,
                        naming.KEY_STOPS,
                        naming.once_key(item.uid, item.attempt),
                    ]
                    args: list[str | int] = [
                        naming.member(item.uid, item.attempt),
                        item.uid,
                        item.attempt,
                        kind.value,
                        _payload(item.snapshot),
                        TOMBSTONE_SECONDS,
                        MAX_STREAM_LENGTH,
                    ]
                    await self._settle(keys=keys, args=args, client=pipe)
                await pipe.execute()

    async def leave(self, message: Message) -> None:
        """Leave the message of an attempt for a pod that runs nothing else; `settle` removes it. To be entered
        before.
        """
        key = naming.once_key(message.uid, message.attempt)
        with redis_errors():
            await self._client.set(key, message.model_dump_json(by_alias=True), ex=CLAIM_SECONDS)

    async def withdraw(self, uid: str, attempt: int, chunk: int | None = None) -> bool:
        """Take an attempt out of the ledger; False if somebody has claimed it already."""
        keys = [naming.KEY_LEDGER, naming.claim_key(uid, attempt, chunk)]
        with redis_errors():
            return bool(await self._withdraw(keys=keys, args=[naming.member(uid, attempt, chunk)]))

    async def request_stop(self, uid: str, attempt: int, reason: Reason, chunk: int | None = None) -> None:
        """Ask whoever runs the attempt to stop; its worker hears of it with its next heartbeat. `settle` takes it
        back.
        """
        member = naming.member(uid, attempt, chunk)
        with redis_errors():
            await self._stop(keys=[naming.KEY_LEASES, naming.KEY_STOPS], args=[member, reason.value])

    async def note(self, item: Attempt, kind: EventKind = EventKind.PENDING) -> None:
        """Tell the history of a Task that is not queued."""
        now = await self.now_ms()
        with redis_errors():
            await self._client.xadd(
                naming.KEY_STREAM,
                {"k": kind.value, "uid": item.uid, "att": item.attempt, "ts": now, "p": _payload(item.snapshot)},
                maxlen=MAX_STREAM_LENGTH,
                approximate=True,
            )

    async def expire(self) -> list[str]:
        """Declare attempts lost whose lease expired; each becomes a `lost` event. Returns their members."""
        failure = Failure(
            reason=Reason.WORKER_LOST, message="the worker stopped renewing its lease: it died, hung or was cut off"
        )
        with redis_errors():
            members: list[str] = await self._expire(
                keys=[naming.KEY_LEASES, naming.KEY_STREAM],
                args=[
                    naming.KEY_CLAIM_PREFIX,
                    failure.model_dump_json(by_alias=True),
                    EXPIRE_LIMIT,
                    TOMBSTONE_SECONDS,
                    MAX_STREAM_LENGTH,
                ],
            )
        return members

    async def give_up(self, attempts: Sequence[AttemptKey], failure: Failure) -> list[bool]:
        """Declare each attempt lost, in one round trip; False for one that somebody holds or may claim.

        What follows from it comes by its `lost` event, behind an end that may be in the stream already.
        """
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for uid, *place in attempts:
                    await self._give_up(
                        keys=[naming.KEY_LEDGER, naming.claim_key(uid, *place), naming.KEY_LEASES, naming.KEY_STREAM],
                        args=[
                            naming.member(uid, *place),
                            uid,
                            naming.place(*place),
                            failure.model_dump_json(by_alias=True),
                            TOMBSTONE_SECONDS,
                            MAX_STREAM_LENGTH,
                        ],
                        client=pipe,
                    )
                answers = await pipe.execute()
        return [bool(answer) for answer in answers]

    async def begin_epoch(self, epoch: str) -> bool:
        """Name this life of Redis' data; False if it has a name, True if there was none: Redis is new or lost its data.

        It is a write, so it also tells whether Redis takes any: with its memory full it answers reads, but no
        heartbeat.
        """
        with redis_errors():
            return bool(await self._client.set(naming.KEY_EPOCH, epoch, nx=True))

    async def serve(self, operator: str) -> str:
        """Register this operator with this Redis for `SERVE_SECONDS`; returns the name of the one that is registered.

        Two operators would each take half of the other's events.
        """
        with redis_errors():
            holder = await self._client.get(naming.KEY_OPERATOR)
            if holder in (None, operator):
                await self._client.set(naming.KEY_OPERATOR, operator, ex=SERVE_SECONDS)
                return operator
        return str(holder)

    async def now_ms(self) -> int:
        """Redis' clock, by which leases and ledger times are measured."""
        with redis_errors():
            seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def waiting(self, *, after_ms: int, before_ms: int, limit: int) -> list[tuple[str, int]]:
        """Members in the ledger and since when, oldest first, with after_ms <= time < before_ms."""
        with redis_errors():
            rows: Any = await self._client.zrangebyscore(
                naming.KEY_LEDGER, after_ms, f"({before_ms}", start=0, num=limit, withscores=True
            )
        return [(str(member), int(score)) for member, score in rows]

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        """What is known of each attempt, in one round trip and the same order."""
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for uid, *place in attempts:
                    pipe.get(naming.claim_key(uid, *place))
                    pipe.zscore(naming.KEY_LEASES, naming.member(uid, *place))
                    pipe.zscore(naming.KEY_LEDGER, naming.member(uid, *place))
                answers = await pipe.execute()
        triples = zip(answers[0::3], answers[1::3], answers[2::3], strict=True)
        return [State(claim or "", lease is not None, entry is not None) for claim, lease, entry in triples]

    async def trim_stream(self) -> None:
        """Drop events that all groups have read: ends of chunks carry results, and must not accumulate."""
        await trim_read(self._client)

    async def oldest_messages(self, lists: Sequence[str]) -> list[str | None]:
        """For each Redis list of messages, the raw message that is served next; None for an empty one."""
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for name in lists:
                    pipe.lindex(name, -1)
                answers: list[str | None] = await pipe.execute()
        return answers


def _payload(snapshot: TaskSnapshot) -> str:
    return snapshot.model_dump_json(by_alias=True, exclude_none=True)
