"""Answers of reads, kept in Redis for all API processes. A hit is one round trip and makes no model.

An answer stands under the mark that its namespace had before anything was read for it (`taskflow_core.ledger.cache_versions`): so one that
took long cannot be kept for a history that changed meanwhile. Its time also counts from before. Nobody is let in by a hit: callers
are authorised before they come here.
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
"""An answer with a resource in it, which others change without telling us."""
HISTORY_SECONDS = 5.0
"""An answer from the history alone, whose changes are all marked."""
MAX_CHARS = 256 * 1024
"""Of one answer."""
MAX_TOTAL_CHARS = 16 * 1024 * 1024
"""Of all that this process keeps within `HISTORY_SECONDS`: the Redis may be one that must not run full."""
_TASKS = f"/apis/{naming.API_VERSION}/namespaces/"


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was kept."""

    headers: Mapping[str, str]
    body: str

    def response(self, if_none_match: str | None = None) -> Response:
        """As it is sent: 304 to a caller who has it, `Cache-Status` by RFC 9211."""
        headers = {**self.headers, "Cache-Status": "taskflow; hit"}
        tag = self.headers.get("ETag")
        if tag is not None and if_none_match is not None and tag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type="application/json", headers=headers)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a question may be kept, and until when."""

    key: str
    mark: str
    until: float


Found = TypeVar("Found", Kept, Place, None)


class ReadCache:
    """Looks answers up and keeps them. When its Redis is away everything is read anew.

    Args:
        together: its Redis; None: nothing is kept.
        clock: monotonic seconds.
    """

    def __init__(self, together: PipelinedClient | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._together = together
        self._clock = clock
        self._breaker = CircuitBreaker(clock)
        self._window, self._in_window = 0.0, 0

    async def look(self, namespace: str, question: str, seconds: float) -> Kept | Place | None:
        """The answer, or where to keep it once it is made, or neither: nothing of this namespace may be kept now.

        Args:
            namespace: whose history it is about.
            question: all that the answer depends on besides.
            seconds: how long it counts, at most.
        """
        if self._together is None:
            return None
        if self._breaker.resting:
            return self._count("unavailable", None)
        digest = hashlib.sha256(question.encode()).hexdigest()
        key = f"{naming.KEY_API_PREFIX}answer:{namespace}:{digest}"
        until = self._clock() + seconds
        try:
            with self._breaker.noting():
                mark, found = refusals(await self._together.ask(("GET", version_key(namespace)), ("GET", key)))
                if mark is None:
                    # Of two who see none, one sets it; who reads from now on may keep what he reads.
                    refusals(
                        await self._together.ask(
                            ("SET", version_key(namespace), new_version(), "EX", KEPT_SECONDS, "NX")
                        )
                    )
        except Unavailable:
            return self._count("unavailable", None)
        if mark is None or mark.startswith(CHANGING):
            return self._count("bypass", None)
        if found is not None and found.startswith(f"{mark}\n"):
            _, headers, body = found.split("\n", 2)
            return self._count("hit", Kept(json.loads(headers), body))
        return self._count("miss", Place(key, mark, until))

    async def keep(self, place: Kept | Place | None, made: BaseModel, headers: Mapping[str, str]) -> Response:
        """The answer as it is sent, and kept if there is a place for it."""
        body = made.model_dump_json(by_alias=True)
        if isinstance(place, Place) and self._together is not None and self._has_room(len(body)):
            milliseconds = int((place.until - self._clock()) * 1000)
            if milliseconds > 0:
                text = f"{place.mark}\n{json.dumps(dict(headers))}\n{body}"
                with suppress(Unavailable), self._breaker.noting():
                    refusals(await self._together.ask(("SET", place.key, text, "PX", milliseconds)))
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


class MarkedWrites:
    """The API server, with a mark after each change of a Task: who changed one through the API reads it as it is."""

    def __init__(self, kube: KubeClient, marks: CacheVersions) -> None:
        self._kube = kube
        self._marks = marks

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
            # Also after an error: the server may have done it. A new Task has no answer that is kept.
            if method in ("PATCH", "PUT", "DELETE") and path.startswith(_TASKS):
                await self._marks.changed([path.removeprefix(_TASKS).partition("/")[0]])

    def watch(self, path: str, version: str, field_selector: str = "") -> AsyncIterator[Sequence[dict[str, Any]]]:
        """See `KubeClient.watch`."""
        return self._kube.watch(path, version, field_selector)
