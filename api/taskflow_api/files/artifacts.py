"""Routes that give presigned links to the outputs of a Task. The content never passes through this process."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import RedirectResponse

from taskflow_api.files.links import LINK_SECONDS
from taskflow_api.http.access import may_on
from taskflow_api.http.names import TASK, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices, Services
from taskflow_api.tasks.lookup import find_task
from taskflow_api.tasks.views import TaskView
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import StoredOutput
from taskflow_core.errors import NotFound

router = APIRouter(tags=["artifacts"], responses=PROBLEMS)

OutputName = Annotated[str, Path(max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Artifact(Model):
    """A stored output and a link to download it."""

    name: str
    size_bytes: int
    sha256: str
    content_type: str
    url: str
    """Needs no token: anyone who has the link can use it."""
    expires_at: datetime


class ArtifactList(Model):
    """The stored outputs of a Task."""

    items: list[Artifact]


@router.get(
    TASK + "/artifacts",
    operation_id="listArtifacts",
    summary="Get links to the outputs of a Task",
    dependencies=[Depends(may_on("get"))],
)
async def list_artifacts(namespace: Namespace, name: Name, services: InServices) -> ArtifactList:
    """Empty until the Task has succeeded."""
    _, view = await find_task(services, namespace, name)
    links = [await _artifact(services, view, output) for output in view.outputs]
    return ArtifactList(items=links)


@router.get(
    TASK + "/artifacts/{output}",
    operation_id="getArtifact",
    summary="Get a link to one output of a Task",
    dependencies=[Depends(may_on("get"))],
    response_model=Artifact,
    responses={307: {"description": "With redirect=true: a redirect to the object."}},
)
async def get_artifact(
    namespace: Namespace,
    name: Name,
    output: OutputName,
    services: InServices,
    redirect: Annotated[
        bool, Query(description="Redirect to the object (307) instead of answering with JSON.")
    ] = False,
) -> Response | Artifact:
    """The link is valid for 15 minutes."""
    _, view = await find_task(services, namespace, name)
    stored = next((each for each in view.outputs if each.name == output), None)
    if stored is None:
        raise NotFound(f"Task {name} has no stored output {output}")
    artifact = await _artifact(services, view, stored)
    return RedirectResponse(artifact.url, 307) if redirect else artifact


async def _artifact(services: Services, view: TaskView, output: StoredOutput) -> Artifact:
    # Workers report the keys. Without this check, a compromised one could get links to objects of any namespace.
    if not output.key.startswith(f"{naming.object_prefix(view.namespace)}{view.uid}/"):
        raise NotFound(f"output {output.name} is not stored under the prefix of Task {view.name}")
    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    url = await asyncio.to_thread(
        services.objects.presigned_get,
        output.key,
        seconds=LINK_SECONDS,
        filename=output.name,
        content_type=output.content_type,
    )
    return Artifact(
        name=output.name,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        content_type=output.content_type,
        url=url,
        expires_at=expires,
    )
