"""Redis scripts that a worker runs for its attempts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import redis

from taskflow_core.domain.chunks import ChunkEnd, Counted
from taskflow_core.domain.events import Advance, Continuation, EventKind, Failure, Success
from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.phases import Reason
from taskflow_core.ledger.connect import CLAIM_SECONDS, MAX_STREAM_LENGTH, TOMBSTONE_SECONDS, redis_errors, script

Outcome = Success | ChunkEnd | Counted | Continuation | Failure
"""Kinds of events that end an execution."""


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt, until it is finished or taken away."""

    message: Message
    holder: str
    """Names this execution: worker|runner|nonce."""
    prefix: str
    epoch: str


@dataclass(frozen=True)
class Holding:
    """An attempt that this worker runs, as its main process knows it."""

    member: str
    runner: int
    """Id of the pool process or of the thread that runs it, as the kernel counts both: no two of a machine share
    one."""
    token: str = ""
    """The attempt's, so that what the main process says of it is believed."""


@dataclass(frozen=True)
class Heartbeat:
    """Answer to a renewal."""

    epoch: str
    fenced: tuple[str, ...]
    """Members that somebody else holds, or that were declared lost: their outcome will be refused."""
    stops: Mapping[str, Reason] = field(default_factory=dict)
    """Members that the operator wants stopped, and why."""


class WorkerLedger:
    """What a worker does with the ledger. Synchronous; one per process, which its threads may share.

    All methods raise `Unavailable` when Redis does not answer, and all may be repeated then.

    Args:
        client: connection of this process.
        namespace: whose attempts it runs.
        worker: name of the worker process, unique among all that ever ran, without `|`.
        lease_ms: how long a lease lasts without renewal.
    """

    def __init__(self, client: redis.Redis, namespace: str, worker: str, lease_ms: int) -> None:
        self._client = client
        self._keys = keys_of(namespace)
        self._worker = worker
        self._lease_ms = lease_ms
        self._claim = client.register_script(script("claim"))
        self._finish = client.register_script(script("finish"))
        self._heartbeat = client.register_script(script("heartbeat"))
        self._surrender = client.register_script(script("surrender"))

    def _prefix(self, runner: int) -> str:
        return f"{self._worker}|{runner}|"

    def candidate(self, message: Message, runner: int) -> Claim:
        """A claim not yet made: made once per delivery, so that `claim` may be repeated when its answer is lost.

        Args:
            message: what was delivered.
            runner: see `Holding`.
        """
        prefix = self._prefix(runner)
        return Claim(message=message, holder=prefix + secrets.token_hex(8), prefix=prefix, epoch="")

    def left(self, key: str) -> Message | None:
        """The message that the operator left under this key for a pod of its own; None if there is none.

        Raises:
            pydantic.ValidationError: it is no message.
        """
        with redis_errors():
            found = self._client.get(key)
        return None if found is None else Message.model_validate_json(found)

    def claim(self, candidate: Claim) -> Claim | None:
        """Claim the attempt; None if it is somebody else's, closed, or unknown: then do nothing."""
        message = candidate.message
        of = self._keys
        keys = [of.ledger, of.claim_prefix + message.member, of.leases, of.events, of.epoch]
        args: list[str | int] = [
            message.member,
            message.uid,
            message.place,
            candidate.holder,
            candidate.prefix,
            message.token,
            self._worker,
            self._lease_ms,
            CLAIM_SECONDS,
            MAX_STREAM_LENGTH,
        ]
        with redis_errors():
            granted, epoch = self._claim(keys=keys, args=args)
        if not granted:
            return None
        return Claim(message=message, holder=candidate.holder, prefix=candidate.prefix, epoch=epoch)

    def finish(self, claim: Claim, kind: EventKind, outcome: Outcome) -> bool:
        """Report the end of the execution; False if the attempt was taken away and the outcome does not count."""
        message = claim.message
        of = self._keys
        keys = [of.claim_prefix + message.member, of.leases, of.events, of.epoch]
        args: list[str | int] = [
            message.member,
            message.uid,
            message.place,
            claim.holder,
            claim.prefix,
            message.token,
            self._worker,
            kind.value,
            outcome.model_dump_json(by_alias=True, exclude_none=True),
            claim.epoch,
            TOMBSTONE_SECONDS,
            MAX_STREAM_LENGTH,
        ]
        with redis_errors():
            return bool(self._finish(keys=keys, args=args))

    def advance(self, claim: Claim, advance: Advance) -> None:
        """Report progress. Not for anything that must not be lost; without a check, a late one is
        ignored.
        """
        message = claim.message
        with redis_errors():
            seconds, micros = self._client.time()
            self._client.xadd(
                self._keys.events,
                {
                    "k": EventKind.PROGRESS.value,
                    "uid": message.uid,
                    "att": message.place,
                    "tok": message.token,
                    "w": self._worker,
                    "ts": int(seconds) * 1000 + int(micros) // 1000,
                    "p": advance.model_dump_json(by_alias=True, exclude_none=True),
                },
                maxlen=MAX_STREAM_LENGTH,
                approximate=True,
            )

    def heartbeat(self, held: Sequence[Holding], known_epoch: str) -> Heartbeat:
        """Renew the leases of all attempts that this worker runs, in one call."""
        keys = [self._keys.leases, self._keys.epoch, self._keys.stops]
        args: list[str | int] = [known_epoch, self._lease_ms, CLAIM_SECONDS]
        for holding in held:
            keys.append(self._keys.claim_prefix + holding.member)
            args += [holding.member, self._prefix(holding.runner)]
        with redis_errors():
            epoch, fenced, stops = self._heartbeat(keys=keys, args=args)
        pairs = zip(stops[0::2], stops[1::2], strict=True)
        return Heartbeat(epoch, tuple(fenced), {member: Reason(reason) for member, reason in pairs})

    def surrender(self, holding: Holding, kind: EventKind, failure: Failure) -> bool:
        """End an execution on behalf of its runner, which died or must stop; False if it no longer held the attempt."""
        uid, _, place = holding.member.partition(":")
        keys = [self._keys.claim_prefix + holding.member, self._keys.leases, self._keys.events]
        args: list[str | int] = [
            holding.member,
            uid,
            place,
            self._prefix(holding.runner),
            holding.token,
            self._worker,
            kind.value,
            failure.model_dump_json(by_alias=True, exclude_none=True),
            TOMBSTONE_SECONDS,
            MAX_STREAM_LENGTH,
        ]
        with redis_errors():
            return bool(self._surrender(keys=keys, args=args))
