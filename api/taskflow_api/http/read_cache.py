"""The read cache: answers to reads, kept in Redis for all API processes, and the writes that invalidate them.

An answer is stored with the cache version that its namespace had before the data was read
(`taskflow_core.ledger.cache_versions`), so a slow read cannot store an answer that is already outdated. Its time to
live starts at the same moment. The cache authorises nobody: callers are authorised before it is asked.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Response
from pydantic import BaseModel

from taskflow_api.metrics import CACHE
from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_core.kube.client import KubeClient
from taskflow_core.ledger.cache_versions import (
    CHANGING,
    KEPT_SECONDS,
    CacheVersions,
    CircuitBreaker,
    new_version,
    version_key,
)
from taskflow_core.ledger.pipelining import PipelinedClient, refusals

LIVE_SECONDS = 1.0
"""Time to live of an answer with a live resource, which may change without our notice."""
HISTORY_SECONDS = 5.0
"""Time to live of an answer from the history alone. Every change of the history invalidates it."""
MAX_CHARS = 256 * 1024
"""The largest answer that is stored."""
MAX_TOTAL_CHARS = 16 * 1024 * 1024
"""What this process may store within `HISTORY_SECONDS`. The Redis may also hold data that must not be evicted."""
_TASKS = f"/apis/{naming.API_VERSION}/namespaces/"


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer from the cache."""

    headers: Mapping[str, str]
    body: str

    def response(self, if_none_match: str | None = None) -> Response:
        """The response, with `Cache-Status` (RFC 9211); 304 if the caller has this version already."""
        headers = {**self.headers, "Cache-Status": "taskflow; hit"}
        tag = self.headers.get("ETag")
        if tag is not None and if_none_match is not None and tag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type="application/json", headers=headers)


@dataclass(frozen=True, slots=True)
class CacheMiss:
    """Where to store the answer that was not found, under which version, and how long it stays valid."""

    key: str
    version: str
    valid_until: float


Found = TypeVar("Found", CachedAnswer, CacheMiss, None)


class ReadCache:
    """Looks up and stores answers. Without its Redis, every read goes to the source.

    Args:
        client: The Redis of the cache; None turns the cache off.
        clock: Monotonic seconds.
    """

    def __init__(self, client: PipelinedClient | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._breaker = CircuitBreaker(clock)
        self._window, self._in_window = 0.0, 0

    async def get(self, namespace: str, query: str, seconds: float) -> CachedAnswer | CacheMiss | None:
        """The answer to a query, or a miss to pass to `response`; None if nothing may be cached at the moment.

        Args:
            namespace: The namespace whose history the answer depends on.
            query: Everything else that the answer depends on.
            seconds: The time to live.
        """
        if self._client is None:
            return None
        if self._breaker.open:
            return self._count("unavailable", None)
        digest = hashlib.sha256(query.encode()).hexdigest()
        key = f"{naming.KEY_API_PREFIX}answer:{namespace}:{digest}"
        valid_until = self._clock() + seconds
        try:
            with self._breaker.guard():
                version, found = refusals(await self._client.ask(("GET", version_key(namespace)), ("GET", key)))
                if version is None:
                    # NX: if several processes find no version, the first one sets it. Later reads may be cached.
                    refusals(
                        await self._client.ask(("SET", version_key(namespace), new_version(), "EX", KEPT_SECONDS, "NX"))
                    )
        except Unavailable:
            return self._count("unavailable", None)
        if version is None or version.startswith(CHANGING):
            return self._count("bypass", None)
        if found is not None and found.startswith(f"{version}\n"):
            _, headers, body = found.split("\n", 2)
            return self._count("hit", CachedAnswer(json.loads(headers), body))
        return self._count("miss", CacheMiss(key, version, valid_until))

    async def response(
        self, miss: CachedAnswer | CacheMiss | None, content: BaseModel, headers: Mapping[str, str]
    ) -> Response:
        """The response with this content, which is stored if there was a miss."""
        body = content.model_dump_json(by_alias=True)
        if isinstance(miss, CacheMiss) and self._client is not None and self._has_room(len(body)):
            milliseconds = int((miss.valid_until - self._clock()) * 1000)
            if milliseconds > 0:
                text = f"{miss.version}\n{json.dumps(dict(headers))}\n{body}"
                with suppress(Unavailable), self._breaker.guard():
                    refusals(await self._client.ask(("SET", miss.key, text, "PX", milliseconds)))
        return Response(body, media_type="application/json", headers=dict(headers))

    def _has_room(self, size: int) -> bool:
        now = self._clock()
        if now - self._window >= HISTORY_SECONDS:
            self._window, self._in_window = now, 0
        if size > MAX_CHARS or self._in_window + size > MAX_TOTAL_CHARS:
            return False
        self._in_window += size
        return True

    @staticmethod
    def _count(result: str, found: Found) -> Found:
        CACHE.labels(result=result).inc()
        return found


class InvalidatingKube:
    """The API server, with invalidation: a change of a Task invalidates the answers of its namespace.

    So clients read their own writes.
    """

    def __init__(self, kube: KubeClient, versions: CacheVersions) -> None:
        self._kube = kube
        self._versions = versions

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """See `KubeClient.request`."""
        try:
            return await self._kube.request(method, path, body, content_type=content_type, params=params)
        finally:
            # After an error too: the server may have made the change. There is no cached answer about a new Task.
            if method in ("PATCH", "PUT", "DELETE") and path.startswith(_TASKS):
                await self._versions.changed([path.removeprefix(_TASKS).partition("/")[0]])

    def watch(self, path: str, version: str, field_selector: str = "") -> AsyncIterator[Sequence[dict[str, Any]]]:
        """See `KubeClient.watch`."""
        return self._kube.watch(path, version, field_selector)
