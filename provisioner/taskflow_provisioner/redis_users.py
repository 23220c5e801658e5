"""The users in Redis: compared with what should be there, and mended."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from taskflow_core.ledger.connect import redis_errors
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
_DIGEST = re.compile(r"#[0-9a-f]{64}")


@dataclass(frozen=True)
class Applied:
    """A user as it was set, and as Redis has shown it since."""

    rules: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Changes:
    """What differs from what should be."""

    put: tuple[str, ...] = ()
    disconnect: tuple[str, ...] = ()
    """Users that lose a password: whoever logged in with it is still connected."""
    remove: tuple[str, ...] = ()


def compare(
    wanted: Mapping[str, Sequence[str]],
    applied: Mapping[str, Applied],
    found: Mapping[str, str],
    removable: Callable[[str], bool],
) -> Changes:
    """What has to change in Redis.

    Redis shows the rules of a user in a form of its own. So a user is right if it was set to the wanted rules, and
    still looks as it did then.

    Args:
        wanted: the rules of each user.
        applied: what this process has set.
        found: the line of each user that Redis has.
        removable: whether a user may be removed when it is not wanted.
    """
    put = [
        user
        for user, rules in wanted.items()
        if user not in found or applied.get(user) != Applied(tuple(rules), found[user])
    ]
    narrowed = [
        user
        for user in put
        if user in found and set(_DIGEST.findall(found[user])) - {rule for rule in wanted[user] if rule[0] == "#"}
    ]
    remove = [user for user in found if user not in wanted and removable(user)]
    return Changes(tuple(put), tuple(narrowed), tuple(remove))


@dataclass
class Mended:
    """What was changed."""

    changes: Changes = field(default_factory=Changes)
    failed: dict[str, str] = field(default_factory=dict)
    """Users that Redis refused, and why."""


class RedisUsers:
    """Keeps users in Redis.

    Args:
        client: connected as an administrator, with decoded responses.
    """

    def __init__(self, client: Redis) -> None:
        # redis-py publishes no types for single commands.
        self._client: Any = client
        self._applied: dict[str, Applied] = {}

    async def mend(
        self, wanted: Mapping[str, Sequence[str]], removable: Callable[[str], bool] = lambda _user: False
    ) -> Mended:
        """Make the users what they should be.

        Raises:
            Unavailable: Redis does not answer.
        """
        changes = compare(wanted, self._applied, await self._lines(), removable)
        mended = Mended(changes)
        if not changes.put and not changes.remove:
            return mended
        with redis_errors():
            for user in changes.put:
                try:
                    await self._client.execute_command("ACL", "SETUSER", user, "reset", *wanted[user])
                except ResponseError as error:
                    mended.failed[user] = f"Redis refuses the user {user}: {error}"
            for user in changes.disconnect:
                if user not in mended.failed:
                    await self._client.execute_command("CLIENT", "KILL", "USER", user)
            if changes.remove:
                # This also ends their connections.
                await self._client.execute_command("ACL", "DELUSER", *changes.remove)
        after = await self._lines()
        for user in changes.remove:
            self._applied.pop(user, None)
        for user in changes.put:
            if user in after and user not in mended.failed:
                self._applied[user] = Applied(tuple(wanted[user]), after[user])
        return mended

    async def _lines(self) -> dict[str, str]:
        """The line of each user, `user NAME on #digest ...`."""
        with redis_errors():
            lines = await self._client.execute_command("ACL", "LIST")
        return {line.split(" ", 2)[1]: line for line in map(str, lines)}
