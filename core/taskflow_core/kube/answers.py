"""Reads what the API server says when it refuses a request or ends a watch."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from taskflow_core.errors import Cause, Conflict, Dependency, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.deep_json import read_json

_ERRORS: dict[int, type[TaskflowError]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Conflict,
}
# 401: the credential is being renewed or is not known yet; it is read again with each request.
_RETRYABLE = {401, 408, 429, 500, 502, 503, 504}
_UNTYPED = "failed to create typed patch object"
"""A server-side apply with an unknown field: the API server (1.36) answers 500, each time."""


def watch_event(line: bytes) -> dict[str, Any]:
    """One event of a watch.

    Raises:
        Conflict: the server no longer knows the version from which the watch was begun.
        Unavailable: the server ended the watch for another reason.
    """
    event: dict[str, Any] = read_json(line)
    if event["type"] == "ERROR":
        status = event["object"]
        message = f"API server ended the watch: {status.get('code')} {status.get('message')}"
        if status.get("code") == HTTPStatus.GONE:
            raise Conflict(message)
        raise Unavailable(message, Dependency.API_SERVER)
    return event


def refusal(status: int, payload: bytes) -> TaskflowError:
    """Our error for an answer with this HTTP status."""
    try:
        answer = json.loads(payload)
        message = str(answer.get("message") or payload.decode(errors="replace"))
        causes = (answer.get("details") or {}).get("causes") or ()
        found = [Cause(str(each.get("field", "")), str(each.get("message", ""))) for each in causes]
    except (ValueError, AttributeError):
        message, found = payload.decode(errors="replace")[:500], []
    if status in _RETRYABLE and _UNTYPED not in message:
        return Unavailable(f"API server answered {status}: {message}", Dependency.API_SERVER)
    kind = _ERRORS.get(status)
    return Invalid(message, found) if kind is None else kind(message)
