"""Counters of rate limits: one in Redis that all API processes share, and one within a process."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from taskflow_api.gcra.limit import Limit, LimitState
from taskflow_core.domain import naming
from taskflow_core.ledger.pipelining import PipelinedClient, refusals

PREFIX = f"{naming.KEY_API_PREFIX}limit:"
RETRY_SECONDS = 5.0
"""After a failure, Redis is not asked again for this long, so that requests do not wait for it."""
TIMEOUT_SECONDS = 0.25
"""Redis counts as unavailable if it does not answer within this time."""
MAX_KEYS = 10_000


class Counter(Protocol):
    """Counts units against limits. Methods may raise Unavailable."""

    async def consume(self, limits: Sequence[Limit], units: int) -> list[LimitState]:
        """Consume units of all limits, or of none if one of them refuses."""


class ResettableCounter(Counter, Protocol):
    """A counter whose limits can be reset."""

    async def reset(self, limit: Limit) -> None:
        """Make the whole quota available again."""


class RedisCounter:
    """A counter in Redis: one round trip for all limits of a request, with the clock of Redis for all processes."""

    def __init__(self, client: PipelinedClient) -> None:
        self._client = client
        self._source = resources.files("taskflow_api.gcra").joinpath("gcra.lua").read_text()
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def consume(self, limits: Sequence[Limit], units: int) -> list[LimitState]:
        """See `Counter`."""
        call: list[Any] = ["EVALSHA", self._sha, len(limits), *(PREFIX + each.key for each in limits), units]
        for each in limits:
            call += [f"{each.interval:.3f}", each.quota]
        (answer,) = await self._client.ask(tuple(call))
        if isinstance(answer, NoScriptError):
            # Redis was restarted. One round trip but two commands: the API's Redis user may not EVAL.
            _, answer = await self._client.ask(("SCRIPT LOAD", self._source), tuple(call))
        (found,) = refusals([answer])
        return [
            LimitState(limit, bool(passes), int(remaining), int(reset), int(wait))
            for limit, (passes, remaining, reset, wait) in zip(limits, found, strict=True)
        ]

    async def reset(self, limit: Limit) -> None:
        """See `ResettableCounter`. Raises Unavailable."""
        # The API's Redis user may not delete keys.
        refusals(await self._client.ask(("SET", PREFIX + limit.key, "0", "PX", 1)))


class LocalCounter:
    """A counter within this process for the `MAX_KEYS` most recently used keys. It never raises."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrivals: OrderedDict[str, float] = OrderedDict()
        """The theoretical arrival time of each key, in microseconds."""

    async def consume(self, limits: Sequence[Limit], units: int) -> list[LimitState]:
        """See `Counter`."""
        now = self._clock() * 1_000_000
        before = {each.key: max(self._arrivals.get(each.key, 0.0), now) for each in limits}
        after = {each.key: before[each.key] + each.interval * min(units, each.quota) for each in limits}
        waits = {each.key: max(after[each.key] - each.interval * each.quota - now, 0.0) for each in limits}
        passes = not any(waits.values())
        for each in limits if passes else ():
            self._arrivals[each.key] = after[each.key]
            self._arrivals.move_to_end(each.key)
        while len(self._arrivals) > MAX_KEYS:
            self._arrivals.popitem(last=False)
        arrivals = after if passes else before
        return [
            LimitState(
                each,
                not waits[each.key],
                int((each.interval * each.quota - (arrivals[each.key] - now)) / each.interval),
                int(arrivals[each.key] - now),
                int(waits[each.key]),
            )
            for each in limits
        ]

    async def reset(self, limit: Limit) -> None:
        """See `ResettableCounter`."""
        self._arrivals.pop(limit.key, None)
