"""Looks up one Task: in the read cache, among the live resources, and in the history."""

from __future__ import annotations

from typing import Any

from taskflow_api.http.read_cache import LIVE_SECONDS, CachedAnswer, CacheMiss
from taskflow_api.http.services import Services
from taskflow_api.tasks.views import TaskView, from_object, from_row
from taskflow_core.errors import NotFound
from taskflow_core.kube.client import tasks_path

MAX_TAG_CHARS = 128


async def cached_task(services: Services, namespace: str, name: str) -> CachedAnswer | CacheMiss | None:
    """The cached answer to `getTask`; see `ReadCache.get`."""
    return await services.cache.get(namespace, f"getTask {name}", LIVE_SECONDS)


async def find_task(services: Services, namespace: str, name: str) -> tuple[dict[str, Any] | None, TaskView]:
    """The live resource and its view, or None and the newest Task of that name in the history.

    Raises:
        NotFound: neither exists.
        Unavailable: the API server does not answer, or it has no such Task and PostgreSQL does not answer.
    """
    try:
        body = await services.kube.request("GET", tasks_path(namespace, name))
    except NotFound:
        row = await services.history.get_task(namespace, name)
        if row is None:
            raise NotFound(f"there is no Task {name} in namespace {namespace}, and none in its history") from None
        return None, from_row(row)
    return body, from_object(body)
