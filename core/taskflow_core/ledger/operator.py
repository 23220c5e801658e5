"""Redis scripts that the operator runs for attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import Attempt, AttemptKey, Entered, Entry, Held, State, Survey
from taskflow_core.domain.events import EventKind, Failure, TaskSnapshot
from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.connect import CLAIM_SECONDS, MAX_STREAM_LENGTH, TOMBSTONE_SECONDS, redis_errors, script
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.scripting import BatchScript, Call, WorkerScripts, stream_full, wrong_type

EXPIRE_LIMIT = 500
"""Leases of a namespace that one call finds."""
MAX_MEMBER_BYTES = 128
MAX_CLAIM_CHARS = 511
MAX_MESSAGE_BYTES = 256 * 1024
"""A longer message is none of ours: arguments and items are at most 16 KiB."""
_FAR_MS = 1e18
"""A worker may have written any number for the end of its lease."""
_SILENT = Failure(
    reason=Reason.WORKER_LOST, message="the worker stopped renewing its lease: it died, hung or was cut off"
)
SERVE_SECONDS = 30
"""After this time without its operator, another one may use this Redis."""


class OperatorLedger:
    """What the operator does with the ledger. Every method raises `Unavailable` when Redis does not answer; all may be
    repeated.

    Args:
        client: connection.
        namespaces: opened before anything is entered.
        token_key: from which the token of each attempt is derived.
    """

    def __init__(self, client: redis.asyncio.Redis, namespaces: Namespaces, token_key: str) -> None:
        self._client = client
        self._namespaces = namespaces
        self._token_key = token_key
        self._enqueue = client.register_script(script("enqueue"))
        self._settle = client.register_script(script("settle"))
        self._withdraw = client.register_script(script("withdraw"))
        self._give_up = client.register_script(script("give_up"))
        self._stop = client.register_script(script("stop"))
        self._survey = BatchScript(client, "survey")
        self._expire = BatchScript(client, "expire")
        self._held = BatchScript(client, "held")
        self._peek = BatchScript(client, "peek")
        self._worker_scripts = WorkerScripts(client)

    async def enqueue(self, attempts: Sequence[Attempt], *, again: bool = False) -> list[Entered]:
        """Enter attempts, in one round trip; the answers are in the same order.

        Args:
            attempts: what to enter.
            again: an attempt that waits already is answered `NEW` with a fresh time, because its message was lost.
        """
        await self._namespaces.ensure(item.snapshot.namespace for item in attempts)
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for item in attempts:
                    keys = keys_of(item.snapshot.namespace)
                    await self._enqueue(
                        keys=[keys.ledger, item.key.claim, keys.notes],
                        args=[
                            item.key.member,
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
                    of = keys_of(item.snapshot.namespace)
                    once = of.once(item.uid, item.attempt)
                    keys = [of.ledger, item.key.claim, of.leases, of.notes, of.stops, once]
                    args: list[str | int] = [
                        item.key.member,
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
        key = keys_of(message.namespace).once(message.uid, message.attempt)
        with redis_errors():
            await self._client.set(key, message.model_dump_json(by_alias=True), ex=CLAIM_SECONDS)

    async def withdraw(self, attempt: AttemptKey) -> bool:
        """Take an attempt out of the ledger; False if somebody has claimed it already."""
        keys = [keys_of(attempt.namespace).ledger, attempt.claim]
        with redis_errors():
            return bool(await self._withdraw(keys=keys, args=[attempt.member]))

    async def request_stop(self, attempt: AttemptKey, reason: Reason) -> None:
        """Ask whoever runs the attempt to stop; its worker hears of it with its next heartbeat. `settle` takes it
        back.
        """
        keys = keys_of(attempt.namespace)
        with redis_errors():
            await self._stop(keys=[keys.leases, keys.stops], args=[attempt.member, reason.value])

    async def note(self, item: Attempt, kind: EventKind = EventKind.PENDING) -> None:
        """Tell the history of a Task that is not queued."""
        await self._namespaces.ensure([item.snapshot.namespace])
        now = await self.now_ms()
        with redis_errors():
            await self._client.xadd(
                keys_of(item.snapshot.namespace).notes,
                {"k": kind.value, "uid": item.uid, "att": item.attempt, "ts": now, "p": _payload(item.snapshot)},
                maxlen=MAX_STREAM_LENGTH,
                approximate=True,
            )

    async def survey(self, namespaces: Mapping[str, int], *, grace_ms: int, limit: int) -> list[Survey]:
        """What needs attention in each namespace, in one round trip.

        Args:
            namespaces: which, and from which ledger time (ms) on to look for attempts that wait.
            grace_ms: attempts that are in the ledger for less are left out.
            limit: attempts that wait, of each namespace.
        """
        calls = []
        for namespace, after_ms in namespaces.items():
            keys = keys_of(namespace)
            arguments = [after_ms, grace_ms, limit, EXPIRE_LIMIT, MAX_MEMBER_BYTES]
            calls.append(([keys.leases, keys.ledger], arguments))
        answers = await self._survey.call(calls)
        return [_survey(namespace, answer) for namespace, answer in zip(namespaces, answers, strict=True)]

    async def held(self, namespace: str, pod: str, *, limit: int) -> list[Held]:
        """What the workers that ran in a pod hold, among the first leases of the namespace to run out."""
        keys = keys_of(namespace)
        (answer,) = await self._held.call(
            [([keys.leases], [keys.claim_prefix, f"{pod}:", limit, MAX_MEMBER_BYTES])],
        )
        if isinstance(answer, RedisError):
            return []
        now_ms, *rest = answer
        return [
            Held(key, claim, int(min(float(until), _FAR_MS)), int(now_ms))
            for member, claim, until in zip(rest[0::3], rest[1::3], rest[2::3], strict=True)
            if (key := AttemptKey.of(namespace, member)) is not None
        ]

    async def expire(
        self,
        expired: Sequence[AttemptKey],
        nobodys: Sequence[tuple[str, str]] = (),
        *,
        failures: Mapping[AttemptKey, Failure] | None = None,
        holders: Mapping[AttemptKey, str] | None = None,
    ) -> list[AttemptKey]:
        """Declare attempts lost whose lease ran out; each becomes a `lost` event. Returns those that are.

        Args:
            expired: what `survey` found.
            nobodys: namespaces and names among their leases that are no attempts of theirs; only removed.
            failures: why, where that is known.
            holders: claims whose holder is dead: these attempts are lost although their lease has not run out, if the
                claim is still the same.
        """
        by_namespace: dict[str, list[tuple[str, str, str, str, str, str]]] = {}
        for key in expired:
            payload = (failures or {}).get(key, _SILENT).model_dump_json(by_alias=True)
            fields = key.member, key.uid, key.place, self._token(key), payload, (holders or {}).get(key, "")
            by_namespace.setdefault(key.namespace, []).append(fields)
        for namespace, member in nobodys:
            by_namespace.setdefault(namespace, []).append((member, "", "", "", "", ""))
        calls: list[Call] = []
        for namespace, members in by_namespace.items():
            of = keys_of(namespace)
            claims = [of.claim_prefix + member for member, *_ in members]
            arguments: list[str | int] = [
                TOMBSTONE_SECONDS,
                MAX_STREAM_LENGTH,
                *(text for each in members for text in each),
            ]
            calls.append(([of.leases, of.events, *claims], arguments))
        found: list[AttemptKey] = []
        for namespace, answer in zip(by_namespace, await self._expire.call(calls), strict=True):
            # A namespace whose stream takes nothing is found by the next look at it.
            members_lost = [] if isinstance(answer, RedisError) else answer
            found += [one for member in members_lost if (one := AttemptKey.of(namespace, member)) is not None]
        return found

    def _token(self, key: AttemptKey) -> str:
        return naming.attempt_token(self._token_key, *key)

    async def give_up(self, attempts: Sequence[AttemptKey], failure: Failure) -> list[bool]:
        """Declare each attempt lost, in one round trip; False for one that somebody holds or may claim, and for one
        whose stream is broken.

        What follows from it comes by its `lost` event, behind an end that may be in the stream already.
        """
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for key in attempts:
                    of = keys_of(key.namespace)
                    await self._give_up(
                        keys=[of.ledger, key.claim, of.leases, of.events],
                        args=[
                            key.member,
                            key.uid,
                            key.place,
                            failure.model_dump_json(by_alias=True),
                            TOMBSTONE_SECONDS,
                            MAX_STREAM_LENGTH,
                            self._token(key),
                        ],
                        client=pipe,
                    )
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                # A namespace whose stream is broken is found by the next look at it, and holds up no other.
                if isinstance(answer, RedisError) and not (wrong_type(answer) or stream_full(answer)):
                    raise answer
        return [answer == 1 for answer in answers]

    async def begin_epoch(self, epoch: str) -> bool:
        """Name this life of Redis' data; False if it has a name, True if there was none: Redis is new or lost its data.

        It is a write, so it also tells whether Redis takes any: with its memory full it answers reads, but no
        heartbeat.
        """
        with redis_errors():
            return bool(await self._client.set(naming.KEY_EPOCH, epoch, nx=True))

    async def serve(self, operator: str) -> str:
        """Register this operator with this Redis for `SERVE_SECONDS`, and have it know the scripts of workers; returns
        the name of the one that is registered.

        Two operators would each take half of the other's events.
        """
        with redis_errors():
            holder = await self._client.get(naming.KEY_OPERATOR)
            if holder in (None, operator):
                await self._client.set(naming.KEY_OPERATOR, operator, ex=SERVE_SECONDS)
                await self._worker_scripts.load()
                return operator
        return str(holder)

    async def now_ms(self) -> int:
        """Redis' clock, by which leases and ledger times are measured."""
        with redis_errors():
            seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        """What is known of each attempt, in one round trip and the same order."""
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for key in attempts:
                    of = keys_of(key.namespace)
                    # A worker may have written anything of any length there.
                    pipe.getrange(key.claim, 0, MAX_CLAIM_CHARS)
                    pipe.zscore(of.leases, key.member)
                    pipe.zscore(of.ledger, key.member)
                answers = await pipe.execute()
        triples = zip(answers[0::3], answers[1::3], answers[2::3], strict=True)
        return [State(claim or "", lease is not None, entry is not None) for claim, lease, entry in triples]

    async def oldest_messages(self, lists: Sequence[str]) -> list[str | None]:
        """For each Redis list of messages, the raw message that is served next; None for an empty one, and an empty
        text for one that is none of ours.
        """
        answers = await self._peek.call([([name], [MAX_MESSAGE_BYTES, -1, -1]) for name in lists])
        return [_head(answer) for answer in answers]


def _head(answer: Any) -> str | None:
    if isinstance(answer, RedisError):
        return ""
    ((*messages,),) = answer
    return str(messages[0]) if messages else None


def _survey(namespace: str, answer: Any) -> Survey:
    if isinstance(answer, RedisError):
        return Survey(namespace, problem=str(answer))
    now_ms, expired, removed, waiting = answer
    return Survey(
        namespace,
        int(now_ms),
        tuple(key for member in expired if (key := AttemptKey.of(namespace, member)) is not None),
        tuple(member for member in expired if AttemptKey.of(namespace, member) is None),
        int(removed),
        tuple(
            (key, int(float(since)))
            for member, since in zip(waiting[0::2], waiting[1::2], strict=True)
            if (key := AttemptKey.of(namespace, member)) is not None
        ),
    )


def _payload(snapshot: TaskSnapshot) -> str:
    return snapshot.model_dump_json(by_alias=True, exclude_none=True)
