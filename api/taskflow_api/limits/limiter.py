"""Counts in Redis for all API processes together; when it is away, each counts writes for itself."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from taskflow_api.limits.policy import WINDOW_SECONDS, Limit, Standing
from taskflow_api.metrics import UNCOUNTED
from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.pipelining import PipelinedClient, refusals
from taskflow_core.telemetry.logs import get_logger

PREFIX = f"{naming.KEY_API_PREFIX}limit:"
AWAY_SECONDS = 5.0
"""Redis is not asked again so soon after it did not answer: a request should not wait for that."""
ANSWER_SECONDS = 0.25
"""A Redis that is there and says nothing is away after so long."""
KEPT = 10_000
_log = get_logger(__name__)


class Counter(Protocol):
    """Where is counted. Raises `Unavailable`."""

    async def take(self, limits: Sequence[Limit], units: int) -> list[Standing]:
        """Take units of all limits, or of none."""


class RedisCounter:
    """One round trip for all limits of a request. Redis' clock counts, so processes whose clocks differ agree."""

    def __init__(self, together: PipelinedClient) -> None:
        self._together = together
        self._source = resources.files("taskflow_api.limits").joinpath("gcra.lua").read_text()
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def take(self, limits: Sequence[Limit], units: int) -> list[Standing]:
        """See `Counter`."""
        call: list[Any] = ["EVALSHA", self._sha, len(limits), *(PREFIX + each.key for each in limits), units]
        for each in limits:
            call += [f"{each.interval:.3f}", each.quota]
        (answer,) = await self._together.ask(tuple(call))
        if isinstance(answer, NoScriptError):
            # A Redis that was started anew. In one round trip, but not in one command: the API's user may not EVAL.
            _, answer = await self._together.ask(("SCRIPT LOAD", self._source), tuple(call))
        (found,) = refusals([answer])
        return [
            Standing(limit, bool(passes), int(left), int(whole), int(wait))
            for limit, (passes, left, whole, wait) in zip(limits, found, strict=True)
        ]

    async def forget(self, limit: Limit) -> None:
        """Give all units of a limit back. Raises `Unavailable`."""
        # The API's user of Redis may not delete.
        refusals(await self._together.ask(("SET", PREFIX + limit.key, "0", "PX", 1)))


class LocalCounter:
    """The same in this process, for at most `KEPT` keys, the latest used."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tats: OrderedDict[str, float] = OrderedDict()

    async def take(self, limits: Sequence[Limit], units: int) -> list[Standing]:
        """See `Counter`; never raises."""
        now = self._clock() * 1_000_000
        before = {each.key: max(self._tats.get(each.key, 0.0), now) for each in limits}
        after = {each.key: before[each.key] + each.interval * min(units, each.quota) for each in limits}
        waits = {each.key: max(after[each.key] - each.interval * each.quota - now, 0.0) for each in limits}
        passes = not any(waits.values())
        for each in limits if passes else ():
            self._tats[each.key] = after[each.key]
            self._tats.move_to_end(each.key)
        while len(self._tats) > KEPT:
            self._tats.popitem(last=False)
        stand = after if passes else before
        return [
            Standing(
                each,
                not waits[each.key],
                int((each.interval * each.quota - (stand[each.key] - now)) / each.interval),
                int(stand[each.key] - now),
                int(waits[each.key]),
            )
            for each in limits
        ]

    async def forget(self, limit: Limit) -> None:
        """Give all units of a limit back; never raises."""
        self._tats.pop(limit.key, None)


class Limiter:
    """Which limits hold for a request, and whether they let it pass.

    Args:
        shared: counts for all processes; None: this one counts for itself alone.
        caller_per_minute: units of each caller; 0: no limit.
        namespace_per_minute: units of all callers together in a namespace; 0: no limit.
        namespaces: other numbers for some of them.
        key_per_minute: units of each API key; 0: no limit.
        keys: other numbers for some of them, by id.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        shared: Counter | None,
        *,
        caller_per_minute: int,
        namespace_per_minute: int,
        namespaces: Mapping[str, int],
        key_per_minute: int = 0,
        keys: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._local = LocalCounter(clock)
        self._caller = caller_per_minute
        self._namespace = namespace_per_minute
        self._namespaces = namespaces
        self._key = key_per_minute
        self._keys = keys or {}
        self._clock = clock
        self._away_until = 0.0
        self._away = False
        self.open_reads = 0
        """Reads that passed uncounted because Redis was away."""

    async def take(self, caller: str, namespace: str, units: int, *, write: bool, api_key: str = "") -> list[Standing]:
        """How the limits stand; the request may go on if all of them let it pass. Empty: nothing limits it, or nobody could count.

        Args:
            caller: the identity.
            namespace: that the request is about; empty: none.
            units: what it costs.
            write: it changes something.
            api_key: id of the key by which the caller came; empty: none.
        """
        limits = self._limits(caller, namespace, api_key)
        if not limits:
            return []
        if self._shared is None:
            return await self._local.take(limits, units)
        if self._clock() >= self._away_until:
            try:
                found = await self._shared.take(limits, units)
            except Unavailable as error:
                self._note(error)
            else:
                self._note(None)
                return found
        UNCOUNTED.labels("write" if write else "read").inc()
        if write:
            return await self._local.take(limits, units)
        self.open_reads += 1
        return []

    def _limits(self, caller: str, namespace: str, api_key: str) -> list[Limit]:
        wanted = (
            Limit("caller", f"c:{caller}", self._caller),
            Limit("key", f"k:{api_key}", self._keys.get(api_key, self._key) if api_key else 0),
            Limit("namespace", f"n:{namespace}", self._namespaces.get(namespace, self._namespace) if namespace else 0),
        )
        return [each for each in wanted if each.quota]

    def _note(self, error: Unavailable | None) -> None:
        if error is not None:
            self._away_until = self._clock() + AWAY_SECONDS
            if not self._away:
                _log.warning("limits_counted_locally", cause=str(error), window=WINDOW_SECONDS)
        elif self._away:
            _log.info("limits_counted_together", open_reads=self.open_reads)
        self._away = error is not None
