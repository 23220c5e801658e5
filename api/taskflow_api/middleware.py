"""What holds for every request, routed or not: id, size, token, a problem for the unexpected, audit of writes."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskflow_api.auth import Caller
from taskflow_api.metrics import REQUESTS
from taskflow_api.problems import problem_response
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger

MAX_BODY_BYTES = 1024 * 1024
OPEN_PATHS = frozenset({"/livez", "/startupz", "/readyz", "/version", "/openapi.json"})
_NO_SNIFFING, _NO_STORE = (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes; large data goes to an upload"
_log = get_logger(__name__)


class RequestFrame:
    """Outermost: names the request, bounds its body, and answers what nothing else answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        # Whatever else stands there (too long, line breaks, escape sequences) would end up in logs.
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        status, began = 0, time.perf_counter()

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Written as they are sent: Starlette's own class looks through all of them for each.
                answer = [*message.get("headers", ()), (b"x-request-id", request_id.encode()), _NO_SNIFFING]
                if all(name != b"cache-control" for name, _ in answer):
                    answer.append(_NO_STORE)
                told: Mapping[str, str] = state.get("headers", {})
                answer += [(name.lower().encode(), value.encode("latin-1")) for name, value in told.items()]
                message["headers"] = answer
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                length = headers.get("content-length", "0")
                if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                    await problem_response(scope, 413, _TOO_LARGE)(scope, receive, framed)
                else:
                    await self._app(scope, _bounded(receive), framed)
            except Exception:
                _log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:
                    raise
                await problem_response(scope, 500, "")(scope, receive, framed)
            finally:
                _audit(state, status)
                route = getattr(scope.get("route"), "path_format", "")
                REQUESTS.labels(_method(scope["method"]), route, status).observe(time.perf_counter() - began)


def _method(name: str) -> str:
    return name if name in _METHODS else "_OTHER"


def _bounded(receive: Receive) -> Receive:
    """The body, counted: a chunked one announces no length."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return counted


def _audit(state: Mapping[str, Any], status: int) -> None:
    if audited := state.get("audit"):
        _log.info("audit", **audited, status=status)


class Authentication:
    """Only open paths answer without a valid token; others do not even say that they do not exist.

    Args:
        app: What is behind it.
        authenticate: The caller that a token proves, None when it proves none; raises Unavailable.
        open_paths: Paths that need no token.
    """

    def __init__(
        self, app: ASGIApp, authenticate: Callable[[str], Awaitable[Caller | None]], open_paths: Collection[str]
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        try:
            caller = await self._authenticate(token.strip()) if scheme.lower() == "bearer" and token else None
        except Unavailable as error:
            _log.warning("dependency_failed", cause=str(error), path=scope["path"])
            answer = problem_response(scope, 503, "what checks this token does not answer; try again")
            await answer(scope, receive, send)
            return
        if caller is None:
            headers = {"WWW-Authenticate": 'Bearer realm="taskflow"'}
            detail = "send a valid token or API key as 'Authorization: Bearer TOKEN'"
            await problem_response(scope, 401, detail, headers=headers)(scope, receive, send)
            return
        scope["state"]["caller"] = caller
        await self._app(scope, receive, send)
