"""Answers that are kept, sent before FastAPI looks at the request: what clients poll most, at a third of its cost.

Everything is asked that the route would ask: scope, consent of the API server, limits. Whatever is not plain (no consent is remembered,
a limit refuses, nothing is kept) goes on to the route, which decides; what was counted is not counted there again.
"""

from __future__ import annotations

import asyncio
import re

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from taskflow_api import auth
from taskflow_api.access import DNS_NAME, LABEL, MAX_LABEL_CHARS, MAX_NAME_CHARS
from taskflow_api.cache import Kept
from taskflow_api.limits.limiting import take, tell
from taskflow_api.services import Services
from taskflow_api.tasks.routes import MAX_TAG_CHARS, look_for_task

_TASK = re.compile(rf"/v1/namespaces/(?P<namespace>{LABEL})/tasks/(?P<name>{DNS_NAME})")


class KeptAnswers:
    """Behind the authentication.

    Args:
        app: the routes.
        services: theirs.
        route: `getTask`, whose answers these are.
    """

    def __init__(self, app: ASGIApp, services: Services, route: APIRoute) -> None:
        self._app = app
        self._services = services
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        kept: Kept | None = None
        tag: str | None = None
        if scope["type"] == "http" and scope["method"] == "GET" and (found := _TASK.fullmatch(scope["path"])):
            tag = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"if-none-match"), None)
            namespace, name = found["namespace"], found["name"]
            # What is longer, the route refuses.
            if len(namespace) <= MAX_LABEL_CHARS and len(name) <= MAX_NAME_CHARS and len(tag or "") <= MAX_TAG_CHARS:
                kept = await self._look(scope, namespace, name)
        if kept is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        await kept.response(tag)(scope, receive, send)

    async def _look(self, scope: Scope, namespace: str, name: str) -> Kept | None:
        services, state = self._services, scope["state"]
        caller: auth.Caller | None = state.get("caller")
        if caller is None or not caller.holds(auth.Scope.READ):
            return None
        if not services.gate.remembers(caller, "get", namespace, name):
            return None
        standings, kept = await asyncio.gather(
            take(services.limiter, caller, "GET", "getTask", namespace), look_for_task(services, namespace, name)
        )
        state["standings"] = standings
        if not isinstance(kept, Kept) or not all(each.passes for each in standings):
            state["looked"] = kept
            return None
        tell(state, standings)
        return kept
