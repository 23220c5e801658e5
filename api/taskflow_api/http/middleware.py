"""ASGI middleware for every request: request id, body limit, HEAD, authentication, unexpected errors, audit log."""

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

from taskflow_api.http.kubernetes_auth import Caller
from taskflow_api.http.nesting import MAX_LEVELS, nested_deeper
from taskflow_api.http.problems import problem_response
from taskflow_api.metrics import REQUESTS
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger

MAX_BODY_BYTES = 1024 * 1024
OPEN_PATHS = frozenset({"/livez", "/startupz", "/readyz", "/version", "/openapi.json"})
_DEFAULTS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    # Answers have what callers and handlers wrote. Nothing of it is a page of this origin.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes; send large data as an upload"
_log = get_logger(__name__)


class RequestFrame:
    """The outermost middleware: sets the request id, limits the body, and answers unexpected errors with a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        # The value is logged, so anything long or with control characters is replaced.
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        status, began = 0, time.perf_counter()

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Raw tuples: Starlette's MutableHeaders searches the whole list for each header.
                answer = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                named = {name for name, _ in answer}
                answer += [each for each in _DEFAULTS if each[0] not in named]
                extra: Mapping[str, str] = state.get("headers", {})
                answer += [(name.lower().encode(), value.encode("latin-1")) for name, value in extra.items()]
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
    """Limits a body while it is received: a chunked one has no Content-Length. Whole, it is looked at before it is
    parsed, because parsers and serialisers give up on what is nested deep.
    """
    received = bytearray()

    async def counted() -> Message:
        message = await receive()
        received.extend(message.get("body", b""))
        if len(received) > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        if b"\0" in message.get("body", b""):
            # Python's parser also reads UTF-16, in which brackets and quotes are other bytes.
            raise HTTPException(400, "the body is not JSON in UTF-8")
        if not message.get("more_body", False) and nested_deeper(received, MAX_LEVELS):
            raise HTTPException(422, f"the body is nested deeper than {MAX_LEVELS} levels")
        return message

    return counted


def _audit(state: Mapping[str, Any], status: int) -> None:
    if audited := state.get("audit"):
        _log.info("audit", **audited, status=status)


class HeadersOnly:
    """Answers HEAD with the headers of the answer to GET, on each path that has it. A stream ends with its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})
                raise _AnsweredError

        # A copy, because the server looks at its own: to HEAD, it sends no body, whatever Content-Length says.
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, headers)
        except _AnsweredError:
            pass
        finally:
            scope["route"] = inner.get("route")


class _AnsweredError(Exception):
    """Ends the handling of a request whose answer needs nothing more."""


class Authentication:
    """Requires a valid token on all paths except the open ones, unknown paths included.

    Args:
        app: The application behind it.
        authenticate: Resolves a token to its caller, None if it is not valid. Raises Unavailable.
        open_paths: Paths that need no token.
    """

    def __init__(
        self, app: ASGIApp, authenticate: Callable[[str], Awaitable[Caller | None]], open_paths: Collection[str]
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        try:
            caller = await self._authenticate(token.strip()) if scheme.lower() == "bearer" and token else None
        except Unavailable as error:
            _log.warning("dependency_failed", cause=str(error), path=scope["path"])
            answer = problem_response(scope, 503, "the service that validates this token is unavailable; try again")
            await answer(scope, receive, send)
            return
        if caller is None:
            headers = {"WWW-Authenticate": 'Bearer realm="taskflow"'}
            detail = "send a valid token or API key as 'Authorization: Bearer TOKEN'"
            await problem_response(scope, 401, detail, headers=headers)(scope, receive, send)
            return
        scope["state"]["caller"] = caller
        await self._app(scope, receive, send)
