"""The route that gives a presigned link to upload an input. The content never passes through this process."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Literal

from fastapi import APIRouter, Depends, Request

from taskflow_api.files.links import LINK_SECONDS, refuse_outputs
from taskflow_api.http.access import may
from taskflow_api.http.body import Body, MediaType, ObjectKey, examples
from taskflow_api.http.names import Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model

router = APIRouter(tags=["artifacts"], responses=PROBLEMS)


class UploadBody(Body):
    """An object to upload. A Task names its key in `inputs[].key`."""

    model_config = examples({"key": "in/log.txt", "contentType": "text/plain"})

    key: ObjectKey
    content_type: MediaType = "application/octet-stream"


class Upload(Model):
    """How to upload the content."""

    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    """Must be sent with the content."""
    key: str
    """For `inputs[].key` of a Task in the same namespace."""
    expires_at: datetime


@router.post(
    "/v1/namespaces/{namespace}/uploads",
    operation_id="createUpload",
    summary="Get a link to upload an input",
    dependencies=[Depends(may("create"))],
)
async def create_upload(request: Request, namespace: Namespace, body: UploadBody, services: InServices) -> Upload:
    """Callers who may create Tasks in the namespace may upload their inputs."""
    request.state.audit |= {"verb": "upload", "name": body.key}
    refuse_outputs(body.key, pointer="/key")
    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    key = naming.object_prefix(namespace) + body.key
    url = await asyncio.to_thread(services.objects.presigned_put, key, seconds=LINK_SECONDS)
    return Upload(url=url, headers={"Content-Type": body.content_type}, key=body.key, expires_at=expires)
