"""The OpenAPI 3.1 document: declares problems with their media type and schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from taskflow_api.http.problems import MEDIA_TYPE, FieldError, Problem

_REF = "#/components/schemas/{model}"
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase, "content": _CONTENT}
    for status in (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503)
}
"""For `responses=` of a router. A model there would be declared as application/json."""


def problem(status: int) -> dict[int | str, dict[str, Any]]:
    """A problem that only some routes return."""
    return {status: {"description": HTTPStatus(status).phrase, "content": _CONTENT}}


def describe(app: FastAPI) -> None:
    """Set the OpenAPI document of the application. It is built once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=None
            )
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            for model in (Problem, FieldError):
                schema = model.model_json_schema(mode="serialization", ref_template=_REF)
                schema.pop("$defs", None)
                schemas[model.__name__] = schema
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI documents this way to extend it
