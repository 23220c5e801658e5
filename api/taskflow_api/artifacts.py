"""Links to objects: the bytes never pass through this process."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from taskflow_api.access import InServices, Namespace, TaskName, may, may_on
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import FieldError, ProblemError
from taskflow_api.services import Services
from taskflow_api.tasks.routes import ONE, find_task
from taskflow_api.tasks.schemas import UploadBody
from taskflow_api.tasks.views import TaskView
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import StoredOutput
from taskflow_core.errors import NotFound

LINK_SECONDS = 900
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
router = APIRouter(tags=["artifacts"], responses=PROBLEMS)

OutputName = Annotated[str, Path(max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Artifact(Model):
    """A stored output and a link that fetches it."""

    name: str
    size_bytes: int
    sha256: str
    content_type: str
    url: str
    """Needs no token; whoever has it may fetch."""
    expires_at: datetime


class ArtifactList(Model):
    """All stored outputs of a Task."""

    items: list[Artifact]


class Upload(Model):
    """Where to send the content, and how."""

    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    """To be sent with the content."""
    key: str
    """For `inputs[].key` of a Task in the same namespace."""
    expires_at: datetime


@router.get(
    ONE + "/artifacts",
    operation_id="listArtifacts",
    summary="Links to the outputs of a Task",
    dependencies=[Depends(may_on("get"))],
)
async def list_artifacts(namespace: Namespace, name: TaskName, services: InServices) -> ArtifactList:
    """Empty until the Task has succeeded."""
    _, view = await find_task(services, namespace, name)
    links = [await _artifact(services, view, output) for output in view.outputs]
    return ArtifactList(items=links)


@router.get(
    ONE + "/artifacts/{output}",
    operation_id="getArtifact",
    summary="Link to one output of a Task",
    dependencies=[Depends(may_on("get"))],
    response_model=Artifact,
    responses={307: {"description": "With redirect=true: to the object itself."}},
)
async def get_artifact(
    namespace: Namespace,
    name: TaskName,
    output: OutputName,
    services: InServices,
    redirect: Annotated[bool, Query(description="Answer 307 to the object instead of JSON.")] = False,
) -> Response | Artifact:
    """The link holds for 15 minutes."""
    _, view = await find_task(services, namespace, name)
    stored = next((each for each in view.outputs if each.name == output), None)
    if stored is None:
        raise NotFound(f"Task {name} has no stored output {output}")
    artifact = await _artifact(services, view, stored)
    return RedirectResponse(artifact.url, 307) if redirect else artifact


@router.post(
    "/v1/namespaces/{namespace}/uploads",
    operation_id="createUpload",
    summary="Link to store an input",
    dependencies=[Depends(may("create"))],
)
async def create_upload(request: Request, namespace: Namespace, body: UploadBody, services: InServices) -> Upload:
    """Whoever may create Tasks in the namespace may store their inputs."""
    request.state.audit |= {"verb": "upload", "name": body.key}
    refuse_outputs(body.key, pointer="/key")
    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    key = naming.object_prefix(namespace) + body.key
    url = await asyncio.to_thread(services.objects.presigned_put, key, seconds=LINK_SECONDS)
    return Upload(url=url, headers={"Content-Type": body.content_type}, key=body.key, expires_at=expires)


def refuse_outputs(key: str, pointer: str = "") -> None:
    """Outputs lie under NAMESPACE/UID/; whoever could write there could replace a result.

    Raises:
        ProblemError: 422, the key is one of those.
    """
    if _UID.fullmatch(key.partition("/")[0]):
        error = FieldError(pointer=pointer, detail="expected a first part that is no uid: outputs of Tasks lie there")
        raise ProblemError(422, "the key belongs to the outputs of a Task", errors=[error])


async def _artifact(services: Services, view: TaskView, output: StoredOutput) -> Artifact:
    # Workers report keys. One that lied could otherwise have a link signed to any object of any namespace.
    if not output.key.startswith(f"{naming.object_prefix(view.namespace)}{view.uid}/"):
        raise NotFound(f"output {output.name} does not lie where the outputs of Task {view.name} do")
    expires = services.now() + timedelta(seconds=LINK_SECONDS)
    url = await asyncio.to_thread(
        services.objects.presigned_get, output.key, seconds=LINK_SECONDS, filename=output.name
    )
    return Artifact(
        name=output.name,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        content_type=output.content_type,
        url=url,
        expires_at=expires,
    )
