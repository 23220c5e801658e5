"""What the API refuses, one class for each kind of problem (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class TaskflowError(Exception):
    """A request that did not succeed.

    Attributes:
        status: HTTP status; 0 without an answer.
        code: of the problem, such as `not-found`.
        detail: in words.
        errors: what is wrong with which part of the request.
        request_id: under which the server's log has it.
        retry_after: seconds, if it said when to come again.
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
    """The server was not reached, or the connection broke: it may have done it."""


class UnauthenticatedError(TaskflowError):
    """401: the token is not valid."""


class ForbiddenError(TaskflowError):
    """403: RBAC, or the scopes of a key, do not allow it."""


class NotFoundError(TaskflowError):
    """404."""


class ConflictError(TaskflowError):
    """409: there is one of that name."""


class ChangedSinceError(TaskflowError):
    """412: somebody changed it since it was read."""


class InvalidError(TaskflowError):
    """400, 413, 415, 416 or 422: the request is wrong; `errors` says where."""


class TooManyRequestsError(TaskflowError):
    """429, still after as many attempts as were allowed."""


class UnavailableError(TaskflowError):
    """5xx: something that the server needs does not answer."""


class ResetError(TaskflowError):
    """A stream was too far behind: read the list again and come back with `last_event_id`."""

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
    """The error that an answer stands for; one that is no problem (of a proxy) has its status alone."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    kind = _BY_STATUS.get(status, UnavailableError if status >= 500 else TaskflowError)  # noqa: PLR2004 - HTTP's own border
    told = headers.get("retry-after", "")
    return kind(
        str(problem.get("detail") or problem.get("title") or f"HTTP {status}"),
        status=status,
        code=str(problem.get("code", "")),
        errors=tuple(problem.get("errors") or ()),
        request_id=str(problem.get("requestId") or headers.get("x-request-id", "")),
        retry_after=float(told) if told.isdecimal() else None,
    )
