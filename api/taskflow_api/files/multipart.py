"""Routes for multipart uploads, whose parts go directly to the object store, and the sweeper of abandoned ones."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, TypeAdapter

from taskflow_api.files.links import LINK_SECONDS, refuse_outputs
from taskflow_api.files.uploads import UploadBody
from taskflow_api.http.access import may
from taskflow_api.http.body import Body, ObjectKey, examples
from taskflow_api.http.names import Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices
from taskflow_core.blobs.multipart import MAX_PARTS, MIN_PART_BYTES, MultipartUploads, SentPart
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger

UPLOADS = "/v1/namespaces/{namespace}/multipart-uploads"
ONE = UPLOADS + "/{upload:part}"
MAX_SIGNED = 100
ABANDONED_AFTER = timedelta(hours=24)
SWEEP_SECONDS = 3600.0
router = APIRouter(tags=["files"], responses=PROBLEMS)
UploadId = Annotated[str, Path(max_length=4000, pattern="^[A-Za-z0-9_-]+$")]
PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS)]
_KEYS = TypeAdapter[str](ObjectKey)
_log = get_logger(__name__)


class MultipartUpload(Model):
    """A multipart upload that was started."""

    id: str
    key: str
    min_part_bytes: int = MIN_PART_BYTES
    """The minimum size of each part except the last."""
    max_parts: int = MAX_PARTS
    expires_at: datetime
    """When it is aborted and its parts are deleted, unless it is completed before."""


class SignBody(Body):
    """The parts to upload."""

    model_config = examples({"parts": [1, 2, 3]})

    parts: Annotated[list[PartNumber], Field(min_length=1, max_length=MAX_SIGNED)]


class PartLink(Model):
    """Where to `PUT` a part. The `ETag` of the response is needed to complete the upload."""

    number: int
    url: str


class PartLinks(Model):
    """Links to upload parts."""

    parts: list[PartLink]
    expires_at: datetime


class UploadedPart(Body):
    """A part that was uploaded."""

    number: PartNumber
    etag: Annotated[str, Field(min_length=1, max_length=200, pattern=r'^"?[A-Za-z0-9._-]+"?$')]


class CompleteBody(Body):
    """All uploaded parts."""

    model_config = examples({"parts": [{"number": 1, "etag": '"9b2cf535f27731c974343645a3985328"'}]})

    parts: Annotated[list[UploadedPart], Field(min_length=1, max_length=MAX_PARTS)]


class CompletedUpload(Model):
    """The object that was assembled from the parts."""

    key: str
    size_bytes: int
    etag: str


def upload_id(key: str, upload: str) -> str:
    """The upload id for clients: the key and the id of the object store in one value."""
    return base64.urlsafe_b64encode(f"{key}\n{upload}".encode()).decode().rstrip("=")


def parse_upload_id(value: str) -> tuple[str, str]:
    """The key within the namespace, and the id of the object store.

    Raises:
        NotFound: the value is not an upload id.
        ProblemError: 422, the key is that of an output.
    """
    try:
        key, _, upload = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode().partition("\n")
        # The key comes from the client again, so it is validated again.
        key = _KEYS.validate_python(key)
    except (binascii.Error, ValueError) as error:
        raise NotFound("this multipart upload does not exist") from error
    if not upload:
        raise NotFound("this multipart upload does not exist")
    # Workers upload outputs in parts too; none of these uploads was begun here.
    refuse_outputs(key)
    return key, upload


@router.post(
    UPLOADS,
    operation_id="createMultipartUpload",
    summary="Start a multipart upload",
    status_code=201,
    dependencies=[Depends(may("create"))],
)
async def begin(request: Request, namespace: Namespace, body: UploadBody, services: InServices) -> MultipartUpload:
    """For content too large for one request, up to 5 TiB."""
    request.state.audit |= {"verb": "upload", "name": body.key}
    refuse_outputs(body.key, pointer="/key")
    full_key = naming.object_prefix(namespace) + body.key
    store_id = await asyncio.to_thread(services.objects.multipart().begin, full_key, body.content_type)
    return MultipartUpload(id=upload_id(body.key, store_id), key=body.key, expires_at=services.now() + ABANDONED_AFTER)


@router.post(
    ONE + ":sign", operation_id="signParts", summary="Get links to upload parts", dependencies=[Depends(may("create"))]
)
async def sign(
    request: Request, namespace: Namespace, upload: UploadId, body: SignBody, services: InServices
) -> PartLinks:
    """The links are valid for 15 minutes. A part can be signed and uploaded again."""
    key, store_id = parse_upload_id(upload)
    request.state.audit |= {"verb": "upload", "name": key}
    full_key, uploads = naming.object_prefix(namespace) + key, services.objects.multipart()

    def links() -> list[PartLink]:
        uploads.check(full_key, store_id)
        return [
            PartLink(number=number, url=uploads.presigned_part(full_key, store_id, number, seconds=LINK_SECONDS))
            for number in body.parts
        ]

    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    return PartLinks(parts=await asyncio.to_thread(links), expires_at=expires)


@router.post(
    ONE + ":complete",
    operation_id="completeMultipartUpload",
    summary="Complete a multipart upload",
    dependencies=[Depends(may("create"))],
)
async def complete(
    request: Request, namespace: Namespace, upload: UploadId, body: CompleteBody, services: InServices
) -> CompletedUpload:
    """Assembles the parts. From then on, Tasks can use the key in `inputs[].key`."""
    key, store_id = parse_upload_id(upload)
    request.state.audit |= {"verb": "upload", "name": key}
    full_key = naming.object_prefix(namespace) + key
    parts = [SentPart(each.number, each.etag) for each in body.parts]
    uploads = services.objects.multipart()
    # If the upload does not exist, some stores report a missing part instead.
    await asyncio.to_thread(uploads.check, full_key, store_id)
    await asyncio.to_thread(uploads.complete, full_key, store_id, parts)
    found = await asyncio.to_thread(services.objects.head, full_key)
    return CompletedUpload(key=key, size_bytes=found.size, etag=found.etag)


@router.delete(
    ONE,
    operation_id="abortMultipartUpload",
    summary="Abort a multipart upload",
    status_code=204,
    dependencies=[Depends(may("create"))],
)
async def abort(request: Request, namespace: Namespace, upload: UploadId, services: InServices) -> Response:
    """Deletes the uploaded parts."""
    key, store_id = parse_upload_id(upload)
    request.state.audit |= {"verb": "upload", "name": key}
    full_key, uploads = naming.object_prefix(namespace) + key, services.objects.multipart()
    await asyncio.to_thread(uploads.check, full_key, store_id)
    await asyncio.to_thread(uploads.abort, full_key, store_id)
    return Response(status_code=204)


async def sweep_forever(uploads: MultipartUploads, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
    """Abort uploads older than a day, once an hour, until cancelled. Several processes may do so concurrently."""
    while True:
        try:
            swept = await asyncio.to_thread(uploads.sweep, now() - ABANDONED_AFTER)
        except TaskflowError as error:
            _log.warning("sweep_postponed", error=str(error))
        else:
            if swept:
                _log.info("uploads_swept", count=swept)
        await asyncio.sleep(SWEEP_SECONDS)
