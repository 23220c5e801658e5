"""Routes that list, link and delete the objects of a namespace. They need the same permissions as its Tasks."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from taskflow_api.files.links import LINK_SECONDS, refuse_outputs
from taskflow_api.http.access import may
from taskflow_api.http.body import ObjectKey
from taskflow_api.http.names import Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model

MAX_PAGE = 1000
router = APIRouter(tags=["files"], responses=PROBLEMS)
FILES = "/v1/namespaces/{namespace}/files"
Key = Annotated[ObjectKey, Path(description="As in `inputs[].key` of a Task.")]


class File(Model):
    """An object."""

    key: str
    """For `inputs[].key` of a Task in the same namespace."""
    size_bytes: int
    etag: str
    modified_at: datetime


class FilePage(Model):
    """A page of objects, by key."""

    items: list[File]
    next_after: str | None = None
    """Send it as `after` for the next page; null at the end."""


class FileLink(File):
    """An object and a link to download it."""

    url: str
    """Needs no token: anyone who has the link can use it."""
    expires_at: datetime


@router.get(
    FILES, operation_id="listFiles", summary="List the objects of a namespace", dependencies=[Depends(may("list"))]
)
async def list_files(
    namespace: Namespace,
    services: InServices,
    prefix: Annotated[str, Query(max_length=900, description="Only keys with this prefix.")] = "",
    after: Annotated[str, Query(max_length=900, description="Only keys after this one.")] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> FilePage:
    """Uploads of clients, and outputs of Tasks under `UID/ATTEMPT/...`."""
    own = naming.object_prefix(namespace)
    start = own + after if after else ""
    found = await asyncio.to_thread(services.objects.list, own + prefix, start_after=start, limit=limit + 1)
    items = [
        File(key=each.key.removeprefix(own), size_bytes=each.size, etag=each.etag, modified_at=each.modified)
        for each in found[:limit]
    ]
    return FilePage(items=items, next_after=items[-1].key if len(found) > limit else None)


@router.get(
    FILES + "/{key:path}",
    operation_id="getFile",
    summary="Get a link to an object",
    dependencies=[Depends(may("get"))],
    response_model=FileLink,
    responses={307: {"description": "With redirect=true: a redirect to the object."}},
)
async def get_file(
    namespace: Namespace,
    key: Key,
    services: InServices,
    redirect: Annotated[
        bool, Query(description="Redirect to the object (307) instead of answering with JSON.")
    ] = False,
) -> Response | FileLink:
    """The link is valid for 15 minutes."""
    full_key = naming.object_prefix(namespace) + key
    found = await asyncio.to_thread(services.objects.head, full_key)
    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    url = await asyncio.to_thread(
        services.objects.presigned_get,
        full_key,
        seconds=LINK_SECONDS,
        filename=key.rpartition("/")[2],
        content_type=found.content_type or "",
    )
    if redirect:
        return RedirectResponse(url, 307)
    return FileLink(
        key=key, size_bytes=found.size, etag=found.etag, modified_at=found.modified, url=url, expires_at=expires
    )


@router.delete(
    FILES + "/{key:path}",
    operation_id="deleteFile",
    summary="Delete an object",
    status_code=204,
    dependencies=[Depends(may("delete"))],
)
async def delete_file(request: Request, namespace: Namespace, key: Key, services: InServices) -> None:
    """Outputs of a Task cannot be deleted here: they are deleted with their Task."""
    request.state.audit |= {"verb": "deleteFile", "name": key}
    full_key = naming.object_prefix(namespace) + key
    await asyncio.to_thread(services.objects.head, full_key)
    refuse_outputs(key)
    await asyncio.to_thread(services.objects.delete, full_key)
