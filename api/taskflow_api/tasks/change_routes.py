"""Routes that change, cancel and retry existing Tasks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from taskflow_api.http.access import may, may_on
from taskflow_api.http.etag import IfMatch, etag, if_match_version
from taskflow_api.http.names import TASK, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_api.ports import FIELD_MANAGER
from taskflow_api.tasks.lookup import find_task
from taskflow_api.tasks.retries import checked, live
from taskflow_api.tasks.schemas import TaskChangeBody
from taskflow_api.tasks.views import TaskView, from_object
from taskflow_core.domain.manifests import retry_manifest, retry_prefix
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import Conflict
from taskflow_core.kube.client import MERGE_PATCH, tasks_path

ITEMS = r"^(failed|[0-9]{1,8}(-[0-9]{1,8})?(,[0-9]{1,8}(-[0-9]{1,8})?)*)$"
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


@router.patch(
    TASK,
    operation_id="changeTask",
    summary="Change priority, suspend, cancel, deadlines or time to live",
    dependencies=[Depends(may_on("patch"))],
)
async def change_task(
    response: Response,
    namespace: Namespace,
    name: Name,
    body: TaskChangeBody,
    services: InServices,
    if_match: IfMatch = None,
) -> TaskView:
    """A JSON merge patch: missing fields stay, null removes. With If-Match, only if the Task has not changed (412)."""
    spec = body.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    return await _patch(services, response, namespace, name, spec, if_match)


@router.post(
    TASK + ":cancel",
    operation_id="cancelTask",
    summary="Cancel a Task",
    dependencies=[Depends(may_on("patch"))],
)
async def cancel_task(response: Response, namespace: Namespace, name: Name, services: InServices) -> TaskView:
    """A queued Task ends at once. The handler of a running one is asked to stop, and killed if it does not."""
    return await _patch(services, response, namespace, name, {"cancel": True}, None)


@router.post(
    TASK + ":retry",
    status_code=201,
    operation_id="retryTask",
    summary="Retry a finished Task",
    dependencies=[Depends(may_on("get")), Depends(may("create"))],
)
async def retry_task(
    request: Request,
    response: Response,
    namespace: Namespace,
    name: Name,
    services: InServices,
    items: Annotated[
        str | None,
        Query(
            max_length=4096,
            pattern=ITEMS,
            description="Of an array, retry only these items: `failed`, or indices such as 3,7-9.",
        ),
    ] = None,
) -> TaskView:
    """Creates a Task with a generated name, annotated with the uid of the old one. The old Task does not change."""
    body, old = await find_task(services, namespace, name)
    if not Phase(old.phase).terminal:
        raise ProblemError(409, f"Task {name} is {old.phase}; only a finished Task can be retried")
    try:
        source = live(body) if body is not None else checked(old)
    except ValidationError as error:
        raise ProblemError(422, "the history has a specification that cannot be repeated") from error
    wanted = retry_manifest(source, generate_name=retry_prefix(name))
    if items is not None:
        wanted["spec"]["array"] = _only(wanted["spec"].get("array"), items, old.uid, name)
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    created = await services.kube.request("POST", tasks_path(namespace), wanted, params=params)
    view = from_object(created)
    request.state.audit["name"] = view.name
    response.headers["Location"] = f"/v1/namespaces/{namespace}/tasks/{view.name}"
    response.headers["ETag"] = etag(created)
    return view


def _only(array: Any, items: str, uid: str, name: str) -> dict[str, Any]:
    """The array, restricted to some of its items."""
    if not isinstance(array, dict):
        raise ProblemError(422, f"Task {name} is not an array and has no items; leave `items` out")
    kept = {
        field: value for field, value in array.items() if field not in ("indexes", "failedOf") and value is not None
    }
    return kept | ({"failedOf": uid} if items == "failed" else {"indexes": items})


async def _patch(
    services: Services, response: Response, namespace: str, name: str, spec: dict[str, object], if_match: str | None
) -> TaskView:
    patch: dict[str, object] = {"spec": spec}
    if (version := if_match_version(if_match)) is not None:
        patch["metadata"] = {"resourceVersion": version}
    try:
        changed = await services.kube.request(
            "PATCH",
            tasks_path(namespace, name),
            patch,
            content_type=MERGE_PATCH,
            params={"fieldManager": FIELD_MANAGER},
        )
    except Conflict as error:
        raise ProblemError(412, "the Task has changed since it was read; read it again") from error
    response.headers["ETag"] = etag(changed)
    return from_object(changed)
