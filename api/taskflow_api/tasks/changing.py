"""Changing Tasks that exist: what may change in place, and another one after it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from taskflow_api.access import InServices, Namespace, TaskName, may, may_on
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import ProblemError
from taskflow_api.services import Services
from taskflow_api.tasks.creating import FIELD_MANAGER, MAX_PREFIX, again
from taskflow_api.tasks.routes import ONE, etag, find_task, wanted_version
from taskflow_api.tasks.schemas import TaskChangeBody
from taskflow_api.tasks.views import TaskView, from_object
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import Conflict
from taskflow_core.kube.client import MERGE_PATCH, tasks_path

ITEMS = r"^(failed|[0-9]{1,8}(-[0-9]{1,8})?(,[0-9]{1,8}(-[0-9]{1,8})?)*)$"
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


@router.patch(
    ONE,
    operation_id="changeTask",
    summary="Change priority, suspend, cancel, deadlines or time to live",
    dependencies=[Depends(may_on("patch"))],
)
async def change_task(
    response: Response,
    namespace: Namespace,
    name: TaskName,
    body: TaskChangeBody,
    services: InServices,
    if_match: Annotated[str | None, Header(max_length=128, description="ETag of the Task as it was read.")] = None,
) -> TaskView:
    """A JSON merge patch: what is not named stays, null removes. With If-Match only if nobody changed it since (412)."""
    spec = body.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    return await _patch(services, response, namespace, name, spec, if_match)


@router.post(
    ONE + ":cancel",
    operation_id="cancelTask",
    summary="Cancel a Task",
    dependencies=[Depends(may_on("patch"))],
)
async def cancel_task(response: Response, namespace: Namespace, name: TaskName, services: InServices) -> TaskView:
    """Queued, it ends at once; running, its handler is asked to stop and killed if it does not. May be repeated."""
    return await _patch(services, response, namespace, name, {"cancel": True}, None)


@router.post(
    ONE + ":retry",
    status_code=201,
    operation_id="retryTask",
    summary="Create a Task like one that has finished",
    dependencies=[Depends(may_on("get")), Depends(may("create"))],
)
async def retry_task(
    request: Request,
    response: Response,
    namespace: Namespace,
    name: TaskName,
    services: InServices,
    items: Annotated[
        str | None,
        Query(max_length=4096, pattern=ITEMS, description="Of an array, only these: `failed`, or indices like 3,7-9."),
    ] = None,
) -> TaskView:
    """The new one has a generated name and `retriedFrom`; the old one stays as it is, be it live or in the history."""
    _, old = await find_task(services, namespace, name)
    if not Phase(old.phase).terminal:
        raise ProblemError(409, f"Task {name} is {old.phase}; only one that has finished is created once more")
    wanted = again(old, generateName=f"{name[:MAX_PREFIX].rstrip('.-')}-")
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
    """The array with some of its items."""
    if not isinstance(array, dict):
        raise ProblemError(422, f"Task {name} is no array: it has no items; leave `items` out")
    kept = {
        field: value for field, value in array.items() if field not in ("indexes", "failedOf") and value is not None
    }
    return kept | ({"failedOf": uid} if items == "failed" else {"indexes": items})


async def _patch(
    services: Services, response: Response, namespace: str, name: str, spec: dict[str, object], if_match: str | None
) -> TaskView:
    patch: dict[str, object] = {"spec": spec}
    if (version := wanted_version(if_match)) is not None:
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
        raise ProblemError(412, "the Task was changed since it was read; read it again") from error
    response.headers["ETag"] = etag(changed)
    return from_object(changed)
