"""The errors that the client raises, by HTTP status. Their values are from the problem (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class TaskflowError(Exception):
    """A request that did not succeed.

    Attributes:
        status: HTTP status; 0 without an answer.
        code: Code of the problem, such as `not-found`.
        detail: A message for people.
        errors: The errors in single parts of the request.
        request_id: Id of the request in the server log.
        retry_after: Seconds to wait, if the server says so.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str = "",
        errors: tuple[Mapping[str, Any], ...] = (),
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        parts = [detail, *(f"{each.get('pointer', '')}: {each.get('detail', '')}" for each in errors)]
        super().__init__("; ".join(filter(None, parts)))
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after = retry_after


class NoAnswerError(TaskflowError):
    """The server did not answer. It may still have processed the request."""


class UnauthenticatedError(TaskflowError):
    """401: the token is not valid."""


class ForbiddenError(TaskflowError):
    """403: RBAC or the scopes of the API key do not allow the request."""


class NotFoundError(TaskflowError):
    """404: the object does not exist."""


class ConflictError(TaskflowError):
    """409: the name is taken, or the state of the object does not allow the request."""


class ChangedSinceError(TaskflowError):
    """412: the object has changed since it was read."""


class InvalidError(TaskflowError):
    """400, 413, 415, 416 or 422: the request is not valid. `errors` says where."""


class TooManyRequestsError(TaskflowError):
    """429, after all retries."""


class UnavailableError(TaskflowError):
    """5xx: the server, or a service that it needs, is unavailable."""


class ResetError(TaskflowError):
    """The stream is too far behind: read the list again and reconnect with `last_event_id`."""

    def __init__(self, last_event_id: str) -> None:
        super().__init__("the stream is too far behind; read the list again")
        self.last_event_id = last_event_id


_BY_STATUS: Mapping[int, type[TaskflowError]] = {
    400: InvalidError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: ChangedSinceError,
    413: InvalidError,
    415: InvalidError,
    416: InvalidError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> TaskflowError:
    """The error of an answer. An answer without a problem, such as that of a proxy, has only a status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    is_server_error = status >= 500  # noqa: PLR2004 - 5xx
    kind = _BY_STATUS.get(status, UnavailableError if is_server_error else TaskflowError)
    retry_after = headers.get("retry-after", "")
    return kind(
        str(problem.get("detail") or problem.get("title") or f"HTTP {status}"),
        status=status,
        code=str(problem.get("code", "")),
        errors=tuple(problem.get("errors") or ()),
        request_id=str(problem.get("requestId") or headers.get("x-request-id", "")),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
