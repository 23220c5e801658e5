"""The route that lists the handlers of a namespace."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from taskflow_api.handlers.examples import example
from taskflow_api.http.access import may
from taskflow_api.http.names import Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.resource_pages import ResourceCursor, resource_page
from taskflow_api.http.services import InServices
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.kube.client import resource_path

COLLECTION = "/v1/namespaces/{namespace}/handlers"
MAX_PAGE = 100
_NAME_CHARS = 50
_RESOURCE = "tasktemplates"
router = APIRouter(tags=["handlers"], responses=PROBLEMS)


class HandlerView(Model):
    """A handler, as a TaskTemplate describes it."""

    name: str
    template: str
    """The TaskTemplate. A Task has to fit each TaskTemplate that names its handler."""
    description: str
    kwargs: dict[str, Any] | None
    """JSON Schema of the keyword arguments; null if they are not checked."""
    defaults: dict[str, Any]
    """What the API server writes into a Task that leaves it out, where it can."""
    allow: list[str] | None
    """The only other fields of a Task that may be set; null if all may."""
    deprecated: str
    """Why the handler should not be used any more; empty if it may be."""
    example: dict[str, Any]
    """A body that creates a Task of the handler, with the required arguments. Their values are made up from the schema;
    patterns are not looked at."""


class HandlerPage(Model):
    """The handlers of some TaskTemplates of a namespace."""

    items: list[HandlerView]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null at the end. It is valid for a few minutes."""


@router.get(
    COLLECTION,
    operation_id="listHandlers",
    summary="List handlers, by TaskTemplate",
    dependencies=[Depends(may("list", _RESOURCE))],
)
async def list_handlers(
    namespace: Namespace,
    services: InServices,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="TaskTemplates of a page.")] = 20,
    cursor: ResourceCursor = None,
) -> HandlerPage:
    """Lists what the TaskTemplates of the namespace describe. Workers may have handlers that none describes."""
    page = await resource_page(
        services.kube, resource_path(f"apis/{naming.API_VERSION}", _RESOURCE, namespace), limit, cursor
    )
    return HandlerPage(
        items=[view for body in page.items for view in handler_views(body)], next_cursor=page.next_cursor
    )


def handler_views(body: dict[str, Any]) -> list[HandlerView]:
    """The handlers of a TaskTemplate resource, in its order."""
    return [_view(body["metadata"]["name"], each) for each in body["spec"]["handlers"]]


def _view(template: str, handler: dict[str, Any]) -> HandlerView:
    schema = handler.get("kwargs")
    made = {} if schema is None else example({**schema, "type": "object"})
    kwargs = made if isinstance(made, dict) else {}
    filled = handler.get("defaults", {}).get("kwargs", {})
    return HandlerView(
        name=handler["name"],
        template=template,
        description=handler.get("description", ""),
        kwargs=schema,
        defaults=handler.get("defaults", {}),
        allow=handler.get("allow"),
        deprecated=handler.get("deprecated", ""),
        example={
            "generateName": _generate_name(handler["name"]),
            "spec": {"handler": handler["name"], "kwargs": kwargs | filled},
        },
    )


def _generate_name(handler: str) -> str:
    """A prefix of names of Tasks, such as `reports-build-`."""
    words = re.sub("[^a-z0-9]+", "-", handler.lower())[:_NAME_CHARS].strip("-")
    return f"{words or 'task'}-"
