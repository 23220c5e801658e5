"""Error answers as `application/problem+json` (RFC 9457). They reveal no stack traces, SQL or internal addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException

from taskflow_core.domain.resource import Model
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.telemetry.logs import get_logger

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "https://taskflow.dev/problems/"
RETRY_AFTER_SECONDS = 5
CODES = {
    400: "bad-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    409: "conflict",
    412: "changed-since",
    413: "too-large",
    415: "unsupported-media-type",
    416: "range-not-satisfiable",
    422: "invalid",
    429: "too-many-requests",
    431: "headers-too-large",
    500: "internal",
    503: "unavailable",
}
_STATUS: dict[type[TaskflowError], int] = {NotFound: 404, Conflict: 409, Forbidden: 403, Invalid: 422, Unavailable: 503}
_SERVER_ERRORS = 500
_log = get_logger(__name__)


class FieldError(Model):
    """One error in a request."""

    location: Literal["body", "path", "query", "header"] = "body"
    pointer: str
    """JSON Pointer (RFC 6901) to the value within `location`; empty for all of it."""
    detail: str


class Problem(Model):
    """A problem (RFC 9457) with a code for programs and the request id of the server log."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    instance: str = ""
    request_id: str = ""
    errors: list[FieldError] = Field(default_factory=list)


class ProblemError(Exception):
    """An error that a route raises to answer with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        errors: Sequence[FieldError] = (),
        members: Mapping[str, Any] | None = None,
        **headers: str,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.errors = list(errors)
        self.members = members
        """Extension members (RFC 9457, section 3.2). They replace standard members of the same name."""
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem_response(
    scope: Mapping[str, Any],
    status: int,
    detail: str,
    *,
    code: str = "",
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """The problem response to the request of an ASGI scope."""
    problem = _problem(scope, status, detail, code, errors)
    extra = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    content = problem.model_dump(mode="json", by_alias=True, exclude={"errors"} if not problem.errors else None)
    return JSONResponse(content | dict(members or {}), status, headers=extra, media_type=MEDIA_TYPE)


def _problem(
    scope: Mapping[str, Any], status: int, detail: str, code: str = "", errors: Sequence[FieldError] = ()
) -> Problem:
    code = code or CODES.get(status, "error")
    return Problem(
        type=TYPE_PREFIX + code,
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        instance=str(scope.get("path", "")),
        request_id=str(scope.get("state", {}).get("request_id", "")),
        errors=list(errors),
    )


def problem_of(scope: Mapping[str, Any], error: ProblemError | ValidationError | TaskflowError) -> Problem:
    """The problem of one part of a request whose other parts may succeed."""
    if isinstance(error, ProblemError):
        return _problem(scope, error.status, error.detail, error.code, error.errors)
    if isinstance(error, ValidationError):
        found = [_field_error({**each, "loc": ("body", *each["loc"])}) for each in error.errors()]
        return _problem(scope, 422, "the Task does not match its schema", errors=found)
    return _problem(scope, *_described(scope, error))


def install(app: FastAPI) -> None:
    """Register the exception handlers. The middleware answers unexpected exceptions."""
    app.exception_handler(ProblemError)(_of_route)
    app.exception_handler(TaskflowError)(_of_domain)
    app.exception_handler(RequestValidationError)(_of_validation)
    app.exception_handler(HTTPException)(_of_framework)


async def _of_route(request: Request, error: ProblemError) -> JSONResponse:
    return problem_response(
        request.scope,
        error.status,
        error.detail,
        code=error.code,
        errors=error.errors,
        headers=error.headers,
        members=error.members,
    )


async def _of_domain(request: Request, error: TaskflowError) -> JSONResponse:
    status, detail, _, errors = _described(request.scope, error)
    return problem_response(request.scope, status, detail, errors=errors)


def _described(scope: Mapping[str, Any], error: TaskflowError) -> tuple[int, str, str, list[FieldError]]:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), _SERVER_ERRORS)
    if status < _SERVER_ERRORS:
        causes = error.causes if isinstance(error, Invalid) else ()
        errors = [FieldError(pointer=_pointer_of_field(cause.field), detail=cause.message) for cause in causes]
        return status, str(error), "", errors
    # The message may name hosts and users of the installation, so it is logged and not returned.
    _log.warning("dependency_failed", cause=str(error), path=scope["path"])
    detail = "a service that this request needs is unavailable; try again" if isinstance(error, Unavailable) else ""
    return status, detail, "", []


async def _of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return problem_response(request.scope, 400, "the body is not JSON", code="bad-json")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and any(tuple(each["loc"]) == ("body",) for each in found):
        return problem_response(request.scope, 415, "send the body as Content-Type: application/json")
    return problem_response(
        request.scope, 422, "the request does not match its schema", errors=[_field_error(each) for each in found]
    )


async def _of_framework(request: Request, error: HTTPException) -> JSONResponse:
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette lists the methods of one route, but several routes may share the path.
        routes: Sequence[APIRoute] = request.app.state.routes
        path = request.scope["path"]
        allowed = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
        allowed |= {"HEAD"} if "GET" in allowed else set()
        headers = {"Allow": ", ".join(sorted(allowed))}
    return problem_response(request.scope, error.status_code, str(error.detail), headers=headers)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    location, *path = [str(part) for part in error["loc"]]
    detail = str(error["msg"]).removeprefix("Value error, ")
    known = location if location in ("path", "query", "header") else "body"
    return FieldError.model_validate({"location": known, "pointer": pointer(path), "detail": detail})


def pointer(path: Sequence[str]) -> str:
    """The JSON Pointer (RFC 6901) of a path of names and indexes."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _pointer_of_field(field: str) -> str:
    """The JSON Pointer of a Kubernetes field path: `spec.inputs[0].key` becomes `/spec/inputs/0/key`."""
    parts = field.replace("[", ".").replace("]", "").split(".")
    # In the body of a create request, name and labels are at the top level, not in metadata.
    parts = parts[1:] if parts[0] == "metadata" else parts
    return pointer([part for part in parts if part and part != "<nil>"])
