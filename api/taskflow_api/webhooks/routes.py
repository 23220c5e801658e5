"""Endpoints and deliveries over REST, under the permissions of `webhooks.taskflow.dev`. Nothing is called from here."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from taskflow_api.access import InServices, Namespace, TaskName, may, may_on
from taskflow_api.auth import Caller
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import FieldError, ProblemError
from taskflow_api.tasks import cursors
from taskflow_api.webhooks import schemas
from taskflow_api.webhooks.deliveries import DeliveryRow
from taskflow_api.webhooks.endpoints import EndpointRow
from taskflow_api.webhooks.guard import Policy, RefusedError, check_url
from taskflow_api.webhooks.office import Webhooks
from taskflow_api.webhooks.schemas import (
    DeliveryPage,
    DeliveryView,
    NewWebhookView,
    RotateSecretBody,
    WebhookBody,
    WebhookChangeBody,
    WebhookList,
    WebhookView,
)
from taskflow_api.webhooks.secrets import new_secret
from taskflow_core.errors import Conflict, NotFound

COLLECTION = "/v1/namespaces/{namespace}/webhooks"
ONE = COLLECTION + "/{name:part}"
DELIVERIES = ONE + "/deliveries"
RESOURCE = "webhooks"
DeliveryId = Annotated[str, Path(max_length=32, pattern=r"^[0-9a-f]{32}$")]
router = APIRouter(tags=["webhooks"], responses=PROBLEMS)


def _office(services: InServices) -> Webhooks:
    if services.webhooks is None:
        raise NotFound("this installation has no webhooks: TASKFLOW_WEBHOOKS_ENABLED is not set")
    return services.webhooks


InOffice = Annotated[Webhooks, Depends(_office)]


@router.post(COLLECTION, status_code=201, operation_id="createWebhook", summary="Make an endpoint")
async def create_webhook(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: WebhookBody,
    services: InServices,
    caller: Annotated[Caller, Depends(may("create", RESOURCE))],
    office: InOffice,
) -> NewWebhookView:
    """`secret` is in this answer and nowhere else."""
    request.state.audit["name"] = body.name
    _check(body.url, office.policy)
    secret = new_secret()
    row = EndpointRow(
        id=uuid.uuid4().hex, namespace=namespace, name=body.name, url=body.url, types=list(dict.fromkeys(body.types)),
        every_task=body.tasks == "All", secret=office.vault.seal(secret), created_at=services.now(),
        created_by=caller.username,
    )  # fmt: skip
    await office.endpoints.add(row)
    response.headers["Location"] = f"/v1/namespaces/{namespace}/webhooks/{row.name}"
    return NewWebhookView.model_validate({**schemas.fields(row), "secret": secret})


@router.get(
    COLLECTION,
    operation_id="listWebhooks",
    summary="Endpoints of a namespace",
    dependencies=[Depends(may("list", RESOURCE))],
)
async def list_webhooks(namespace: Namespace, office: InOffice) -> WebhookList:
    """All of them, by name."""
    return WebhookList(items=[schemas.view(row) for row in await office.endpoints.of_namespace(namespace)])


@router.get(ONE, operation_id="getWebhook", summary="One endpoint", dependencies=[Depends(may_on("get", RESOURCE))])
async def get_webhook(namespace: Namespace, name: TaskName, office: InOffice) -> WebhookView:
    """Without its secret."""
    return schemas.view(await _find(office, namespace, name))


@router.patch(
    ONE, operation_id="changeWebhook", summary="Change an endpoint", dependencies=[Depends(may_on("patch", RESOURCE))]
)
async def change_webhook(
    namespace: Namespace, name: TaskName, body: WebhookChangeBody, services: InServices, office: InOffice
) -> WebhookView:
    """For messages from now on; those that wait go to the new URL too."""
    row = await _find(office, namespace, name)
    told = body.model_dump(exclude_unset=True)
    if "url" in told:
        _check(body.url, office.policy)
    values: dict[str, Any] = {key: told[key] for key in ("url", "types") if key in told}
    if "tasks" in told:
        values["every_task"] = body.tasks == "All"
    if told.get("enabled") is True:
        values |= {"disabled_at": None, "disabled_reason": ""}
    elif told.get("enabled") is False:
        values |= {
            "disabled_at": row.disabled_at or services.now(),
            "disabled_reason": row.disabled_reason or "Disabled",
        }
    return schemas.view(await _changed(office, row, values))


@router.post(
    ONE + ":rotate",
    operation_id="rotateWebhookSecret",
    summary="Make a new secret for an endpoint",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def rotate_secret(
    namespace: Namespace,
    name: TaskName,
    services: InServices,
    office: InOffice,
    body: RotateSecretBody | None = None,
) -> NewWebhookView:
    """Told this once. Until the grace period ends, messages have a signature by each of the two."""
    row = await _find(office, namespace, name)
    secret = new_secret()
    grace = timedelta(seconds=(body or RotateSecretBody()).grace_seconds)
    values = {
        "secret": office.vault.seal(secret),
        "old_secret": row.secret if grace else None,
        "old_secret_until": services.now() + grace if grace else None,
    }
    changed = await _changed(office, row, values)
    return NewWebhookView.model_validate({**schemas.fields(changed), "secret": secret})


@router.post(
    ONE + ":test",
    status_code=202,
    operation_id="testWebhook",
    summary="Send a message of type webhook.test",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def test_webhook(namespace: Namespace, name: TaskName, services: InServices, office: InOffice) -> DeliveryView:
    """It is sent soon, and tried again as others are; look at the delivery for what came of it."""
    endpoint = await _find(office, namespace, name)
    _check_enabled(endpoint)
    now = services.now()
    payload = {
        "type": schemas.TEST,
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": {"namespace": namespace, "webhook": name},
    }
    delivery = DeliveryRow(
        id=uuid.uuid4().hex, webhook_id=endpoint.id, namespace=namespace, event_id=f"evt_test_{uuid.uuid4().hex}",
        type=schemas.TEST, payload=json.dumps(payload), task_uid=None, task_name=None, created_at=now, next_at=now,
    )  # fmt: skip
    await office.deliveries.add(delivery)
    return schemas.delivery_view(name, delivery)


@router.delete(
    ONE,
    status_code=204,
    operation_id="deleteWebhook",
    summary="Delete an endpoint and its deliveries",
    dependencies=[Depends(may_on("delete", RESOURCE))],
)
async def delete_webhook(namespace: Namespace, name: TaskName, office: InOffice) -> None:
    """An attempt that runs at the moment still ends."""
    if not await office.endpoints.delete((await _find(office, namespace, name)).id):
        raise _absent(namespace, name)


@router.get(
    DELIVERIES,
    operation_id="listDeliveries",
    summary="Deliveries of an endpoint, newest first",
    dependencies=[Depends(may_on("get", RESOURCE))],
)
async def list_deliveries(
    namespace: Namespace,
    name: TaskName,
    office: InOffice,
    state: Annotated[Literal["Pending", "Delivered", "Failed"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> DeliveryPage:
    """With their attempts."""
    endpoint = await _find(office, namespace, name)
    scope = [endpoint.id, state or ""]
    try:
        after = None if cursor is None else cursors.decode(cursor, scope)
    except cursors.BadCursor as error:
        raise ProblemError(400, str(error), code="bad-cursor") from error
    rows = await office.deliveries.page(endpoint.id, state=state, after=after, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    following = cursors.encode((last.created_at, last.id), scope) if last is not None else None
    return DeliveryPage(items=[schemas.delivery_view(name, row) for row in rows[:limit]], next_cursor=following)


@router.get(
    DELIVERIES + "/{delivery:part}",
    operation_id="getDelivery",
    summary="One delivery",
    dependencies=[Depends(may_on("get", RESOURCE))],
)
async def get_delivery(namespace: Namespace, name: TaskName, delivery: DeliveryId, office: InOffice) -> DeliveryView:
    """With its attempts and what is sent."""
    endpoint = await _find(office, namespace, name)
    row = await office.deliveries.get(endpoint.id, delivery)
    if row is None:
        raise NotFound(f"there is no delivery {delivery} of webhook {name} in namespace {namespace}")
    return schemas.delivery_view(name, row)


@router.post(
    DELIVERIES + "/{delivery:part}:replay",
    status_code=202,
    operation_id="replayDelivery",
    summary="Deliver once more",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def replay_delivery(namespace: Namespace, name: TaskName, delivery: DeliveryId, office: InOffice) -> DeliveryView:
    """Soon, under the same `webhook-id`, and with the whole schedule of attempts; one that waits already is a conflict."""
    endpoint = await _find(office, namespace, name)
    _check_enabled(endpoint)
    row = await office.deliveries.replay(endpoint.id, delivery)
    if row is None:
        raise NotFound(f"there is no delivery {delivery} of webhook {name} in namespace {namespace}")
    return schemas.delivery_view(name, row)


async def _find(office: Webhooks, namespace: str, name: str) -> EndpointRow:
    row = await office.endpoints.get(namespace, name)
    if row is None:
        raise _absent(namespace, name)
    return row


async def _changed(office: Webhooks, row: EndpointRow, values: dict[str, Any]) -> EndpointRow:
    changed = await office.endpoints.change(row.id, values)
    if changed is None:
        raise _absent(row.namespace, row.name)
    return changed


def _absent(namespace: str, name: str) -> NotFound:
    return NotFound(f"there is no webhook {name} in namespace {namespace}")


def _check(url: str, policy: Policy) -> None:
    try:
        check_url(url, policy)
    except RefusedError as error:
        found = FieldError(pointer="/url", detail=str(error))
        raise ProblemError(422, "this URL may not be called", errors=[found]) from error


def _check_enabled(endpoint: EndpointRow) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict(f"webhook {endpoint.name} is disabled ({endpoint.disabled_reason}); enable it first")
