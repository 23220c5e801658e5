"""Which rate limits apply to a request, and their state after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from taskflow_api.gcra.counters import RETRY_SECONDS, Counter, LocalCounter
from taskflow_api.gcra.limit import WINDOW_SECONDS, Limit, LimitState
from taskflow_api.metrics import UNCOUNTED
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger

_log = get_logger(__name__)


class Limiter:
    """Counts requests against the limits of their caller, API key and namespace.

    Args:
        shared: The counter that all processes share; None if this process counts alone.
        caller_per_minute: Units of each caller; 0 means no limit.
        namespace_per_minute: Units of all callers together in a namespace; 0 means no limit.
        namespaces: Other quotas for some namespaces.
        key_per_minute: Units of each API key; 0 means no limit.
        keys: Other quotas for some API keys, by id.
        clock: Monotonic seconds.
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
        self._retry_at = 0.0
        self._unavailable = False
        self.uncounted_reads = 0
        """Reads that passed uncounted because Redis was unavailable."""

    async def consume(
        self, caller: str, namespace: str, units: int, *, write: bool, api_key: str = ""
    ) -> list[LimitState]:
        """The state of each limit; the request may proceed if all of them pass.

        Empty if no limit applies, or if Redis is unavailable and the request is a read.

        Args:
            caller: The identity.
            namespace: The namespace of the request; empty if it has none.
            units: The cost of the request.
            write: Whether the request changes something.
            api_key: Id of the API key that the caller used; empty if none.
        """
        limits = self._limits(caller, namespace, api_key)
        if not limits:
            return []
        if self._shared is None:
            return await self._local.consume(limits, units)
        if self._clock() >= self._retry_at:
            try:
                found = await self._shared.consume(limits, units)
            except Unavailable as error:
                self._note(error)
            else:
                self._note(None)
                return found
        UNCOUNTED.labels("write" if write else "read").inc()
        if write:
            return await self._local.consume(limits, units)
        self.uncounted_reads += 1
        return []

    def _limits(self, caller: str, namespace: str, api_key: str) -> list[Limit]:
        limits = (
            Limit("caller", f"c:{caller}", self._caller),
            Limit("key", f"k:{api_key}", self._keys.get(api_key, self._key) if api_key else 0),
            Limit("namespace", f"n:{namespace}", self._namespaces.get(namespace, self._namespace) if namespace else 0),
        )
        return [each for each in limits if each.quota]

    def _note(self, error: Unavailable | None) -> None:
        if error is not None:
            self._retry_at = self._clock() + RETRY_SECONDS
            if not self._unavailable:
                _log.warning("limits_counted_locally", cause=str(error), window=WINDOW_SECONDS)
        elif self._unavailable:
            _log.info("limits_counted_in_redis", uncounted_reads=self.uncounted_reads)
        self._unavailable = error is not None
