"""Uploads in parts: begun here, the parts sent to the object store, ended here. Who never ends one has it swept."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, TypeAdapter

from taskflow_api.access import InServices, Namespace, may
from taskflow_api.artifacts import LINK_SECONDS, refuse_outputs
from taskflow_api.documented import PROBLEMS
from taskflow_api.tasks.schemas import Body, ObjectKey, UploadBody, examples
from taskflow_core.blobs.multipart import MAX_PARTS, MIN_PART_BYTES, MultipartUploads, SentPart
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger

UPLOADS = "/v1/namespaces/{namespace}/multipart-uploads"
ONE = UPLOADS + "/{upload:part}"
MAX_SIGNED = 100
KEEP = timedelta(hours=24)
SWEEP_SECONDS = 3600.0
router = APIRouter(tags=["files"], responses=PROBLEMS)
UploadId = Annotated[str, Path(max_length=4000, pattern="^[A-Za-z0-9_-]+$")]
PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS)]
_KEYS = TypeAdapter[str](ObjectKey)
_log = get_logger(__name__)


class Begun(Model):
    """An upload that was begun."""

    id: str
    key: str
    min_part_bytes: int = MIN_PART_BYTES
    """Of each part but the last."""
    max_parts: int = MAX_PARTS
    expires_at: datetime
    """When it is swept, with all its parts, unless it was completed."""


class SignBody(Body):
    """Parts to be sent."""

    model_config = examples({"parts": [1, 2, 3]})

    parts: Annotated[list[PartNumber], Field(min_length=1, max_length=MAX_SIGNED)]


class PartLink(Model):
    """Where to `PUT` a part; the answer's `ETag` is needed to complete."""

    number: int
    url: str


class PartLinks(Model):
    """Links of parts."""

    parts: list[PartLink]
    expires_at: datetime


class Sent(Body):
    """A part that was sent."""

    number: PartNumber
    etag: Annotated[str, Field(min_length=1, max_length=200, pattern=r'^"?[A-Za-z0-9._-]+"?$')]


class CompleteBody(Body):
    """All parts that were sent."""

    model_config = examples({"parts": [{"number": 1, "etag": '"9b2cf535f27731c974343645a3985328"'}]})

    parts: Annotated[list[Sent], Field(min_length=1, max_length=MAX_PARTS)]


class Completed(Model):
    """The object that the parts became."""

    key: str
    size_bytes: int
    etag: str


def upload_id(key: str, upload: str) -> str:
    """Both in one, so that a client keeps one thing."""
    return base64.urlsafe_b64encode(f"{key}\n{upload}".encode()).decode().rstrip("=")


def read_upload_id(value: str) -> tuple[str, str]:
    """Key within the namespace, and the store's own id.

    Raises:
        NotFound: it is none.
    """
    try:
        key, _, upload = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode().partition("\n")
        # The key comes from outside a second time here.
        key = _KEYS.validate_python(key)
    except (binascii.Error, ValueError) as error:
        raise NotFound("there is no such upload") from error
    if not upload:
        raise NotFound("there is no such upload")
    return key, upload


@router.post(
    UPLOADS,
    operation_id="createMultipartUpload",
    summary="Begin an upload in parts",
    status_code=201,
    dependencies=[Depends(may("create"))],
)
async def begin(request: Request, namespace: Namespace, body: UploadBody, services: InServices) -> Begun:
    """For what is larger than one request should be, up to 5 TiB."""
    request.state.audit |= {"verb": "upload", "name": body.key}
    refuse_outputs(body.key, pointer="/key")
    whole = naming.object_prefix(namespace) + body.key
    made = await asyncio.to_thread(services.objects.multipart().begin, whole, body.content_type)
    return Begun(id=upload_id(body.key, made), key=body.key, expires_at=services.now() + KEEP)


@router.post(
    ONE + ":sign", operation_id="signParts", summary="Links to send parts", dependencies=[Depends(may("create"))]
)
async def sign(
    request: Request, namespace: Namespace, upload: UploadId, body: SignBody, services: InServices
) -> PartLinks:
    """They hold for 15 minutes; a part may be signed and sent again."""
    key, made = read_upload_id(upload)
    request.state.audit |= {"verb": "upload", "name": key}
    whole, uploads = naming.object_prefix(namespace) + key, services.objects.multipart()

    def links() -> list[PartLink]:
        uploads.check(whole, made)
        return [
            PartLink(number=number, url=uploads.presigned_part(whole, made, number, seconds=LINK_SECONDS))
            for number in body.parts
        ]

    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    return PartLinks(parts=await asyncio.to_thread(links), expires_at=expires)


@router.post(
    ONE + ":complete",
    operation_id="completeMultipartUpload",
    summary="Make one object of the parts",
    dependencies=[Depends(may("create"))],
)
async def complete(
    request: Request, namespace: Namespace, upload: UploadId, body: CompleteBody, services: InServices
) -> Completed:
    """Its key is good for `inputs[].key` from then on."""
    key, made = read_upload_id(upload)
    request.state.audit |= {"verb": "upload", "name": key}
    whole = naming.object_prefix(namespace) + key
    parts = [SentPart(each.number, each.etag) for each in body.parts]
    uploads = services.objects.multipart()
    # A store may answer that a part is missing when it is the upload that is.
    await asyncio.to_thread(uploads.check, whole, made)
    await asyncio.to_thread(uploads.complete, whole, made, parts)
    found = await asyncio.to_thread(services.objects.head, whole)
    return Completed(key=key, size_bytes=found.size, etag=found.etag)


@router.delete(
    ONE,
    operation_id="abortMultipartUpload",
    summary="Drop the parts",
    status_code=204,
    dependencies=[Depends(may("create"))],
)
async def abort(request: Request, namespace: Namespace, upload: UploadId, services: InServices) -> Response:
    """Nothing of it is kept."""
    key, made = read_upload_id(upload)
    request.state.audit |= {"verb": "upload", "name": key}
    whole, uploads = naming.object_prefix(namespace) + key, services.objects.multipart()
    await asyncio.to_thread(uploads.check, whole, made)
    await asyncio.to_thread(uploads.abort, whole, made)
    return Response(status_code=204)


async def sweep_for_ever(uploads: MultipartUploads, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
    """Abort what nobody ended within a day, once an hour, until cancelled. Several processes may do so at once."""
    while True:
        try:
            swept = await asyncio.to_thread(uploads.sweep, now() - KEEP)
        except TaskflowError as error:
            _log.warning("sweep_postponed", error=str(error))
        else:
            if swept:
                _log.info("uploads_swept", count=swept)
        await asyncio.sleep(SWEEP_SECONDS)
