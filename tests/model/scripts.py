"""The Lua scripts of core/taskflow_core/ledger/lua as pure functions over an immutable Redis; each has the name of its
script.

Time is left out: whose lease ran out is said by the caller, and tombstones stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Redis(NamedTuple):
    """What the scripts see of Redis."""

    begun: bool = False
    """The life of all data has a name (`tf:epoch`)."""
    epoch: str = ""
    """Names the life of the namespace's keys."""
    group: bool = False
    """Consumer group `cr` exists."""
    ledger: frozenset[str] = frozenset()
    claims: tuple[tuple[str, str], ...] = ()
    leases: frozenset[str] = frozenset()
    stops: frozenset[str] = frozenset()
    events: tuple[tuple[str, str], ...] = ()
    """The workers' stream as (kind, member), oldest first."""
    notes: tuple[tuple[str, str], ...] = ()
    """The operator's, likewise. Group `cr` does not read it."""

    def owner(self, member: str) -> str:
        """Value of the claim key; empty if there is none."""
        return next((value for key, value in self.claims if key == member), "")


def own(redis: Redis, member: str, value: str) -> Redis:
    """SET or, with an empty value, DEL of a claim key."""
    others = [pair for pair in redis.claims if pair[0] != member]
    return redis._replace(claims=tuple(sorted([*others, (member, value)] if value else others)))


def tell(redis: Redis, kind: str, member: str) -> Redis:
    """XADD to the workers' stream."""
    return redis._replace(events=(*redis.events, (kind, member)))


def note(redis: Redis, kind: str, member: str) -> Redis:
    """XADD to the operator's stream."""
    return redis._replace(notes=(*redis.notes, (kind, member)))


def begin_epoch(redis: Redis) -> tuple[Redis, bool]:
    """OperatorLedger.begin_epoch: SET NX."""
    return redis._replace(begun=True), not redis.begun


def open_namespace(redis: Redis, epoch: str) -> tuple[Redis, bool]:
    """open.lua"""
    return (redis, False) if redis.epoch else (redis._replace(epoch=epoch, group=True), True)


def enqueue(redis: Redis, member: str, *, again: bool = False) -> tuple[Redis, str]:
    if redis.owner(member):
        return redis, "taken"
    if member in redis.ledger:
        return redis, "new" if again else "waiting"
    return note(redis._replace(ledger=redis.ledger | {member}), "queued", member), "new"


def claim(redis: Redis, member: str, holder: str, prefix: str) -> tuple[Redis, bool]:
    owner = redis.owner(member)
    if owner == holder:
        return redis, True
    free = owner in ("", prefix + "?")
    if not free or member not in redis.ledger:
        return tell(redis, "duplicate", member), False
    redis = own(redis, member, holder)
    redis = redis._replace(ledger=redis.ledger - {member}, leases=redis.leases | {member})
    return tell(redis, "started", member), True


def heartbeat(
    redis: Redis, holdings: Sequence[tuple[str, str]], known_epoch: str
) -> tuple[Redis, tuple[str, frozenset[str], frozenset[str]]]:
    fenced: set[str] = set()
    stops: set[str] = set()
    epoch = redis.epoch
    for member, prefix in holdings:
        owner = redis.owner(member)
        if owner.startswith(prefix):
            if member in redis.stops:
                stops.add(member)
        elif owner:
            if not owner.startswith("done|" + prefix):
                fenced.add(member)
        elif epoch != known_epoch:
            redis = own(redis, member, prefix + "?")
            redis = redis._replace(leases=redis.leases | {member})
    return redis, (epoch, frozenset(fenced), frozenset(stops))


def finish(redis: Redis, member: str, holder: str, prefix: str, kind: str, known_epoch: str) -> tuple[Redis, bool]:
    owner = redis.owner(member)
    if owner == "done|" + holder:
        return redis, True
    mine = owner in (holder, prefix + "?")
    forgotten = not owner and redis.epoch != known_epoch
    if not mine and not forgotten:
        return tell(redis, "stale", member), False
    redis = tell(redis, kind, member)
    return own(redis._replace(leases=redis.leases - {member}), member, "done|" + holder), True


def surrender(redis: Redis, member: str, prefix: str, kind: str) -> tuple[Redis, bool]:
    owner = redis.owner(member)
    if not owner.startswith(prefix):
        return redis, False
    redis = own(redis._replace(leases=redis.leases - {member}), member, f"{kind}|{owner}")
    return tell(redis, kind, member), True


def withdraw(redis: Redis, member: str) -> tuple[Redis, bool]:
    return redis._replace(ledger=redis.ledger - {member}), not redis.owner(member)


def stop(redis: Redis, member: str) -> Redis:
    return redis._replace(stops=redis.stops | {member}) if member in redis.leases else redis


def expire(redis: Redis, ran_out: Collection[str]) -> Redis:
    for member in sorted(redis.leases & frozenset(ran_out)):
        redis = own(redis._replace(leases=redis.leases - {member}), member, "lost|" + redis.owner(member))
        redis = tell(redis, "lost", member)
    return redis


def give_up(redis: Redis, member: str) -> tuple[Redis, bool]:
    if member in redis.leases or member in redis.ledger:
        return redis, False
    if not redis.owner(member):
        redis = own(redis, member, "lost|")
    return tell(redis, "lost", member), True


def settle(redis: Redis, member: str, kind: str = "settled") -> Redis:
    if redis.owner(member) == kind:
        return redis
    redis = redis._replace(ledger=redis.ledger - {member}, leases=redis.leases - {member}, stops=redis.stops - {member})
    return note(own(redis, member, kind), kind, member)
