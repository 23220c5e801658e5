"""Routes that list, read, pause and drain WorkerPools."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, model_validator

from taskflow_api.http.access import may, may_on
from taskflow_api.http.body import Body, examples
from taskflow_api.http.etag import IfMatch, etag, if_match_version
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.resource_pages import ResourceCursor, resource_page
from taskflow_api.http.services import InServices
from taskflow_api.pools.views import PoolView, pool_view
from taskflow_api.ports import FIELD_MANAGER
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.errors import Conflict, NotFound
from taskflow_core.kube.client import MERGE_PATCH, resource_path

COLLECTION = "/v1/namespaces/{namespace}/pools"
ONE = COLLECTION + "/{name:part}"
MAX_PAGE = 500
_RESOURCE = "workerpools"
router = APIRouter(tags=["pools"], responses=PROBLEMS)


class PoolPage(Model):
    """A page of the pools of a namespace, by name."""

    items: list[PoolView]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null at the end. It is valid for a few minutes."""


class PoolSpecChange(Body):
    """The fields of a pool that can change."""

    paused: Annotated[bool, Field(description="Workers finish what they run and stay, but accept no new work.")] = False
    drain: Annotated[bool, Field(description="Workers finish what they run, accept no new work, and exit.")] = False


class PoolChangeBody(Body):
    """A JSON merge patch (RFC 7396) of a pool."""

    model_config = examples({"spec": {"paused": True}})

    spec: PoolSpecChange

    @model_validator(mode="after")
    def _not_empty(self) -> PoolChangeBody:
        if not self.spec.model_fields_set:
            raise ValueError("expected paused or drain in spec")
        return self


@router.get(
    COLLECTION,
    operation_id="listPools",
    summary="List WorkerPools, by name",
    dependencies=[Depends(may("list", _RESOURCE))],
)
async def list_pools(
    namespace: Namespace,
    services: InServices,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: ResourceCursor = None,
) -> PoolPage:
    """Lists the live resources."""
    page = await resource_page(services.kube, _path(namespace), limit, cursor)
    return PoolPage(items=[pool_view(body) for body in page.items], next_cursor=page.next_cursor)


@router.get(ONE, operation_id="getPool", summary="Get a WorkerPool", dependencies=[Depends(may_on("get", _RESOURCE))])
async def get_pool(response: Response, namespace: Namespace, name: Name, services: InServices) -> PoolView:
    """Returns the live resource."""
    try:
        body = await services.kube.request("GET", _path(namespace, name))
    except NotFound:
        raise NotFound(f"there is no WorkerPool {name} in namespace {namespace}") from None
    response.headers["ETag"] = etag(body)
    return pool_view(body)


@router.patch(
    ONE, operation_id="changePool", summary="Pause or drain a pool", dependencies=[Depends(may_on("patch", _RESOURCE))]
)
async def change_pool(
    response: Response,
    namespace: Namespace,
    name: Name,
    body: PoolChangeBody,
    services: InServices,
    if_match: IfMatch = None,
) -> PoolView:
    """A JSON merge patch. With If-Match, only if the pool has not changed since (412); status updates change it too."""
    patch: dict[str, Any] = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if (version := if_match_version(if_match)) is not None:
        patch["metadata"] = {"resourceVersion": version}
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    try:
        changed = await services.kube.request(
            "PATCH", _path(namespace, name), patch, content_type=MERGE_PATCH, params=params
        )
    except Conflict as error:
        raise ProblemError(412, "the pool has changed since it was read; read it again") from error
    except NotFound:
        raise NotFound(f"there is no WorkerPool {name} in namespace {namespace}") from None
    response.headers["ETag"] = etag(changed)
    return pool_view(changed)


def _path(namespace: str, name: str | None = None) -> str:
    return resource_path(f"apis/{naming.API_VERSION}", _RESOURCE, namespace, name)
