from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import Field, model_validator

from taskflow_api.access import InServices, Namespace, TaskName, may, may_on
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import ProblemError
from taskflow_api.tasks.creating import FIELD_MANAGER
from taskflow_api.tasks.routes import etag, wanted_version
from taskflow_api.tasks.schemas import Body, examples
from taskflow_core.domain import naming
from taskflow_core.domain.resource import Condition, Model
from taskflow_core.errors import Conflict, Invalid, NotFound
from taskflow_core.kube.client import MERGE_PATCH, resource_path

COLLECTION = "/v1/namespaces/{namespace}/pools"
ONE = COLLECTION + "/{name:part}"
MAX_PAGE = 500
_RESOURCE = "workerpools"
router = APIRouter(tags=["pools"], responses=PROBLEMS)


class Scaling(Model):
    """Bounds of scaling."""

    min_replicas: int = 0
    max_replicas: int


class DecisionView(Model):
    """The last change of the number of pods by scaling."""

    time: datetime
    replicas: int
    reason: str
    message: str


class PoolView(Model):
    """A WorkerPool: what is wanted of it, and how it is. Figures are those of the operator's last status, at most 5 s old."""

    name: str
    namespace: str
    uid: str
    created_at: datetime
    queues: list[str]
    paused: bool
    drain: bool
    concurrency: int
    """Slots of each of its pods."""
    replicas: int | None
    """That are asked for; null if scaling decides."""
    scaling: Scaling | None
    desired_replicas: int | None
    """Null before the operator has seen the pool, as all below."""
    ready_replicas: int | None
    slots: int | None
    busy_slots: int | None
    demand: int | None
    """What waits for it and what it runs, in slots."""
    queued: int | None
    queue_depths: dict[str, int]
    """Messages in the broker, by queue."""
    oldest_waiting_seconds: int | None
    last_decision: DecisionView | None
    conditions: list[Condition]
    reason: str
    """Of condition Ready."""
    message: str


class PoolPage(Model):
    """Pools of a namespace, by name."""

    items: list[PoolView]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null at the end. It holds for some minutes."""


class PoolSpecChange(Body):
    """What may change of a pool."""

    paused: Annotated[bool, Field(description="Workers stay and end what they run, but take nothing new.")] = False
    drain: Annotated[bool, Field(description="Workers end what they run, take nothing new, and go.")] = False


class PoolChangeBody(Body):
    """A JSON merge patch (RFC 7396) of a pool."""

    model_config = examples({"spec": {"paused": True}})

    spec: PoolSpecChange

    @model_validator(mode="after")
    def _something(self) -> PoolChangeBody:
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
    cursor: Annotated[str | None, Query(max_length=1024, pattern=r"^[A-Za-z0-9_=-]+$")] = None,
) -> PoolPage:
    """The live resources."""
    params = {"limit": str(limit)} | ({"continue": cursor} if cursor else {})
    try:
        page = await services.kube.request("GET", _path(namespace), params=params)
    except Conflict as error:
        raise ProblemError(400, "the cursor is too old; start again without it", code="bad-cursor") from error
    except Invalid as error:
        # Nothing else of the request is for the API server to judge.
        detail = "the cursor is not one of this list; start again without it"
        raise ProblemError(400, detail, code="bad-cursor") from error
    found = [_view(body) for body in page["items"]]
    return PoolPage(items=found, next_cursor=page["metadata"].get("continue") or None)


@router.get(ONE, operation_id="getPool", summary="Get a WorkerPool", dependencies=[Depends(may_on("get", _RESOURCE))])
async def get_pool(response: Response, namespace: Namespace, name: TaskName, services: InServices) -> PoolView:
    """The live resource."""
    try:
        body = await services.kube.request("GET", _path(namespace, name))
    except NotFound:
        raise NotFound(f"there is no WorkerPool {name} in namespace {namespace}") from None
    response.headers["ETag"] = etag(body)
    return _view(body)


@router.patch(
    ONE, operation_id="changePool", summary="Pause or drain a pool", dependencies=[Depends(may_on("patch", _RESOURCE))]
)
async def change_pool(
    response: Response,
    namespace: Namespace,
    name: TaskName,
    body: PoolChangeBody,
    services: InServices,
    if_match: Annotated[str | None, Header(max_length=128, description="ETag of the pool as it was read.")] = None,
) -> PoolView:
    """A JSON merge patch. With If-Match only if nobody changed it since (412); the operator's own status changes it too."""
    patch: dict[str, Any] = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if (version := wanted_version(if_match)) is not None:
        patch["metadata"] = {"resourceVersion": version}
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    try:
        changed = await services.kube.request(
            "PATCH", _path(namespace, name), patch, content_type=MERGE_PATCH, params=params
        )
    except Conflict as error:
        raise ProblemError(412, "the pool was changed since it was read; read it again") from error
    except NotFound:
        raise NotFound(f"there is no WorkerPool {name} in namespace {namespace}") from None
    response.headers["ETag"] = etag(changed)
    return _view(changed)


def _path(namespace: str, name: str | None = None) -> str:
    return resource_path(f"apis/{naming.API_VERSION}", _RESOURCE, namespace, name)


def _view(body: dict[str, Any]) -> PoolView:
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    conditions = status.get("conditions") or []
    ready: dict[str, Any] = next((each for each in conditions if each["type"] == "Ready"), {})
    scaling = spec.get("scaling")
    told = ("desiredReplicas", "readyReplicas", "slots", "busySlots", "demand", "queued", "oldestWaitingSeconds")
    values = {name: status.get(name) for name in (*told, "lastDecision")}
    return PoolView.model_validate(
        {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "createdAt": meta["creationTimestamp"],
            "queues": spec["queues"],
            "paused": bool(spec.get("paused")),
            "drain": bool(spec.get("drain")),
            "concurrency": spec.get("concurrency", 1),
            "replicas": None if scaling else spec.get("replicas", 1),
            "scaling": scaling,
            "queueDepths": status.get("queueDepths") or {},
            "conditions": conditions,
            "reason": ready.get("reason", ""),
            "message": ready.get("message", ""),
            **values,
        }
    )
