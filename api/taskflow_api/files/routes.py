"""The objects of a namespace, those that clients stored and the outputs of Tasks; whoever may do so with its Tasks may with them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from taskflow_api.access import InServices, Namespace, may
from taskflow_api.artifacts import LINK_SECONDS, refuse_outputs
from taskflow_api.documented import PROBLEMS
from taskflow_api.tasks.schemas import ObjectKey
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
    """Objects in the order of their keys."""

    items: list[File]
    next_after: str | None = None
    """For `after`, to get the next ones; null when there are none."""


class FileLink(File):
    """An object and a link that fetches it."""

    url: str
    """Needs no token; whoever has it may fetch."""
    expires_at: datetime


@router.get(FILES, operation_id="listFiles", summary="Objects of the namespace", dependencies=[Depends(may("list"))])
async def list_files(
    namespace: Namespace,
    services: InServices,
    prefix: Annotated[str, Query(max_length=900, description="Only keys that begin so.")] = "",
    after: Annotated[str, Query(max_length=900, description="Only keys behind this one.")] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> FilePage:
    """What clients uploaded, and `UID/ATTEMPT/...` of the Tasks."""
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
    summary="Link to an object",
    dependencies=[Depends(may("get"))],
    response_model=FileLink,
    responses={307: {"description": "With redirect=true: to the object itself."}},
)
async def get_file(
    namespace: Namespace,
    key: Key,
    services: InServices,
    redirect: Annotated[bool, Query(description="Answer 307 to the object instead of JSON.")] = False,
) -> Response | FileLink:
    """The link holds for 15 minutes."""
    whole = naming.object_prefix(namespace) + key
    found = await asyncio.to_thread(services.objects.head, whole)
    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    name = key.rpartition("/")[2]
    url = await asyncio.to_thread(services.objects.presigned_get, whole, seconds=LINK_SECONDS, filename=name)
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
    """Not an output of a Task: that goes with its Task."""
    request.state.audit |= {"verb": "deleteFile", "name": key}
    whole = naming.object_prefix(namespace) + key
    await asyncio.to_thread(services.objects.head, whole)
    refuse_outputs(key)
    await asyncio.to_thread(services.objects.delete, whole)
