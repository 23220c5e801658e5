"""Middleware that answers `getTask` from the read cache before FastAPI parses the request, at a third of the cost.

It applies the same checks as the route: scope, permission and rate limits. In every other case (the permission is not
cached, a limit refuses, the cache has no answer) the route decides. What was counted here is not counted again.
"""

from __future__ import annotations

import asyncio
import re

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from taskflow_api.http import kubernetes_auth
from taskflow_api.http.names import DNS_NAME, LABEL, MAX_LABEL_CHARS, MAX_NAME_CHARS
from taskflow_api.http.read_cache import CachedAnswer
from taskflow_api.http.services import Services
from taskflow_api.limits.dependency import count, set_headers
from taskflow_api.limits.limiter import Limiter
from taskflow_api.tasks.lookup import MAX_TAG_CHARS, cached_task

_TASK = re.compile(rf"/v1/namespaces/(?P<namespace>{LABEL})/tasks/(?P<name>{DNS_NAME})")


class CachedAnswers:
    """Runs after the authentication.

    Args:
        app: The application behind it.
        services: The services of its routes.
        limiter: The rate limits.
        route: The route of `getTask`, for the metrics.
    """

    def __init__(self, app: ASGIApp, services: Services, limiter: Limiter, route: APIRoute) -> None:
        self._app = app
        self._services = services
        self._limiter = limiter
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        answer: CachedAnswer | None = None
        tag: str | None = None
        # The route has no parameters; it refuses one that is given twice.
        plain = scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]
        if plain and (found := _TASK.fullmatch(scope["path"])):
            tag = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"if-none-match"), None)
            namespace, name = found["namespace"], found["name"]
            # The route rejects longer values.
            if len(namespace) <= MAX_LABEL_CHARS and len(name) <= MAX_NAME_CHARS and len(tag or "") <= MAX_TAG_CHARS:
                answer = await self._cached(scope, namespace, name)
        if answer is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        await answer.response(tag)(scope, receive, send)

    async def _cached(self, scope: Scope, namespace: str, name: str) -> CachedAnswer | None:
        services, state = self._services, scope["state"]
        caller: kubernetes_auth.Caller | None = state.get("caller")
        if caller is None or not caller.holds(kubernetes_auth.Scope.READ):
            return None
        if not services.auth.allowed_recently(caller, "get", namespace, name):
            return None
        limits, found = await asyncio.gather(
            count(self._limiter, caller, "GET", "getTask", namespace), cached_task(services, namespace, name)
        )
        state["limits"] = limits
        if not isinstance(found, CachedAnswer) or not all(each.passes for each in limits):
            state["cached"] = found
            return None
        set_headers(state, limits)
        return found
