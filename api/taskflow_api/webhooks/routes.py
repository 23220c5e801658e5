"""Routes of endpoints and deliveries, under the permissions of `webhooks.taskflow.dev`. They send no messages."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from taskflow_api.http import cursors
from taskflow_api.http.access import may, may_on
from taskflow_api.http.kubernetes_auth import Caller
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import FieldError, ProblemError
from taskflow_api.http.services import InServices
from taskflow_api.webhooks import schemas
from taskflow_api.webhooks.deliveries import DeliveryRow
from taskflow_api.webhooks.endpoints import EndpointRow
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
from taskflow_api.webhooks.url_policy import Policy, UrlNotAllowedError, check_url
from taskflow_api.webhooks.wiring import Webhooks
from taskflow_core.errors import Conflict, NotFound

COLLECTION = "/v1/namespaces/{namespace}/webhooks"
ONE = COLLECTION + "/{name:part}"
DELIVERIES = ONE + "/deliveries"
RESOURCE = "webhooks"
DeliveryId = Annotated[str, Path(max_length=32, pattern=r"^[0-9a-f]{32}$")]
router = APIRouter(tags=["webhooks"], responses=PROBLEMS)


async def _webhooks(request: Request) -> Webhooks:
    webhooks: Webhooks | None = request.app.state.webhooks
    if webhooks is None:
        raise NotFound("this installation has no webhooks: TASKFLOW_WEBHOOKS_ENABLED is not set")
    return webhooks


InWebhooks = Annotated[Webhooks, Depends(_webhooks)]


@router.post(COLLECTION, status_code=201, operation_id="createWebhook", summary="Create an endpoint")
async def create_webhook(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: WebhookBody,
    services: InServices,
    caller: Annotated[Caller, Depends(may("create", RESOURCE))],
    webhooks: InWebhooks,
) -> NewWebhookView:
    """Only this response contains the `secret`."""
    request.state.audit["name"] = body.name
    _check(body.url, webhooks.policy)
    secret = new_secret()
    row = EndpointRow(
        id=uuid.uuid4().hex,
        namespace=namespace,
        name=body.name,
        url=body.url,
        types=list(dict.fromkeys(body.types)),
        every_task=body.tasks == "All",
        secret=webhooks.vault.encrypt(secret),
        created_at=services.now(),
        created_by=caller.username,
    )
    await webhooks.endpoints.add(row)
    response.headers["Location"] = f"/v1/namespaces/{namespace}/webhooks/{row.name}"
    return NewWebhookView.model_validate({**schemas.fields(row), "secret": secret})


@router.get(
    COLLECTION,
    operation_id="listWebhooks",
    summary="List the endpoints of a namespace",
    dependencies=[Depends(may("list", RESOURCE))],
)
async def list_webhooks(namespace: Namespace, webhooks: InWebhooks) -> WebhookList:
    """All endpoints, by name."""
    return WebhookList(items=[schemas.view(row) for row in await webhooks.endpoints.of_namespace(namespace)])


@router.get(ONE, operation_id="getWebhook", summary="Get an endpoint", dependencies=[Depends(may_on("get", RESOURCE))])
async def get_webhook(namespace: Namespace, name: Name, webhooks: InWebhooks) -> WebhookView:
    """The response does not contain the secret."""
    return schemas.view(await _find(webhooks, namespace, name))


@router.patch(
    ONE, operation_id="changeWebhook", summary="Change an endpoint", dependencies=[Depends(may_on("patch", RESOURCE))]
)
async def change_webhook(
    namespace: Namespace, name: Name, body: WebhookChangeBody, services: InServices, webhooks: InWebhooks
) -> WebhookView:
    """Applies to future messages. Pending ones go to the new URL too."""
    row = await _find(webhooks, namespace, name)
    changed = body.model_dump(exclude_unset=True)
    if "url" in changed:
        _check(body.url, webhooks.policy)
    values: dict[str, Any] = {key: changed[key] for key in ("url", "types") if key in changed}
    if "tasks" in changed:
        values["every_task"] = body.tasks == "All"
    if changed.get("enabled") is True:
        values |= {"disabled_at": None, "disabled_reason": ""}
    elif changed.get("enabled") is False:
        values |= {
            "disabled_at": row.disabled_at or services.now(),
            "disabled_reason": row.disabled_reason or "Disabled",
        }
    return schemas.view(await _changed(webhooks, row, values))


@router.post(
    ONE + ":rotate",
    operation_id="rotateWebhookSecret",
    summary="Rotate the secret of an endpoint",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def rotate_secret(
    namespace: Namespace,
    name: Name,
    services: InServices,
    webhooks: InWebhooks,
    body: RotateSecretBody | None = None,
) -> NewWebhookView:
    """The new secret is shown only once. Until the grace period ends, messages are signed with both secrets."""
    row = await _find(webhooks, namespace, name)
    secret = new_secret()
    grace = timedelta(seconds=(body or RotateSecretBody()).grace_seconds)
    values = {
        "secret": webhooks.vault.encrypt(secret),
        "old_secret": row.secret if grace else None,
        "old_secret_until": services.now() + grace if grace else None,
    }
    changed = await _changed(webhooks, row, values)
    return NewWebhookView.model_validate({**schemas.fields(changed), "secret": secret})


@router.post(
    ONE + ":test",
    status_code=202,
    operation_id="testWebhook",
    summary="Send a test message (webhook.test)",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def test_webhook(namespace: Namespace, name: Name, services: InServices, webhooks: InWebhooks) -> DeliveryView:
    """The message is queued and retried like others. The delivery shows the result."""
    endpoint = await _find(webhooks, namespace, name)
    _check_enabled(endpoint)
    now = services.now()
    payload = {
        "type": schemas.TEST,
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": {"namespace": namespace, "webhook": name},
    }
    delivery = DeliveryRow(
        id=uuid.uuid4().hex,
        webhook_id=endpoint.id,
        namespace=namespace,
        event_id=f"evt_test_{uuid.uuid4().hex}",
        type=schemas.TEST,
        payload=json.dumps(payload),
        task_uid=None,
        task_name=None,
        created_at=now,
        next_at=now,
    )
    await webhooks.deliveries.add(delivery)
    return schemas.delivery_view(name, delivery)


@router.delete(
    ONE,
    status_code=204,
    operation_id="deleteWebhook",
    summary="Delete an endpoint and its deliveries",
    dependencies=[Depends(may_on("delete", RESOURCE))],
)
async def delete_webhook(namespace: Namespace, name: Name, webhooks: InWebhooks) -> None:
    """A running attempt is not interrupted."""
    if not await webhooks.endpoints.delete((await _find(webhooks, namespace, name)).id):
        raise _not_found(namespace, name)


@router.get(
    DELIVERIES,
    operation_id="listDeliveries",
    summary="List the deliveries of an endpoint, newest first",
    dependencies=[Depends(may_on("get", RESOURCE))],
)
async def list_deliveries(
    namespace: Namespace,
    name: Name,
    webhooks: InWebhooks,
    state: Annotated[Literal["Pending", "Delivered", "Failed"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> DeliveryPage:
    """Each delivery includes its attempts."""
    endpoint = await _find(webhooks, namespace, name)
    scope = [endpoint.id, state or ""]
    after = cursors.position(cursor, scope)
    rows = await webhooks.deliveries.page(endpoint.id, state=state, after=after, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    following = cursors.encode((last.created_at, last.id), scope) if last is not None else None
    return DeliveryPage(items=[schemas.delivery_view(name, row) for row in rows[:limit]], next_cursor=following)


@router.get(
    DELIVERIES + "/{delivery:part}",
    operation_id="getDelivery",
    summary="Get a delivery",
    dependencies=[Depends(may_on("get", RESOURCE))],
)
async def get_delivery(namespace: Namespace, name: Name, delivery: DeliveryId, webhooks: InWebhooks) -> DeliveryView:
    """Includes the payload and the attempts."""
    endpoint = await _find(webhooks, namespace, name)
    row = await webhooks.deliveries.get(endpoint.id, delivery)
    if row is None:
        raise NotFound(f"there is no delivery {delivery} of webhook {name} in namespace {namespace}")
    return schemas.delivery_view(name, row)


@router.post(
    DELIVERIES + "/{delivery:part}:replay",
    status_code=202,
    operation_id="replayDelivery",
    summary="Replay a delivery",
    dependencies=[Depends(may_on("patch", RESOURCE))],
)
async def replay_delivery(namespace: Namespace, name: Name, delivery: DeliveryId, webhooks: InWebhooks) -> DeliveryView:
    """Sends the message again, with the same `webhook-id` and the full retry schedule. Conflict if it is pending."""
    endpoint = await _find(webhooks, namespace, name)
    _check_enabled(endpoint)
    row = await webhooks.deliveries.replay(endpoint.id, delivery)
    if row is None:
        raise NotFound(f"there is no delivery {delivery} of webhook {name} in namespace {namespace}")
    return schemas.delivery_view(name, row)


async def _find(webhooks: Webhooks, namespace: str, name: str) -> EndpointRow:
    row = await webhooks.endpoints.get(namespace, name)
    if row is None:
        raise _not_found(namespace, name)
    return row


async def _changed(webhooks: Webhooks, row: EndpointRow, values: dict[str, Any]) -> EndpointRow:
    changed = await webhooks.endpoints.change(row.id, values)
    if changed is None:
        raise _not_found(row.namespace, row.name)
    return changed


def _not_found(namespace: str, name: str) -> NotFound:
    return NotFound(f"there is no webhook {name} in namespace {namespace}")


def _check(url: str, policy: Policy) -> None:
    try:
        check_url(url, policy)
    except UrlNotAllowedError as error:
        found = FieldError(pointer="/url", detail=str(error))
        raise ProblemError(422, "this URL is not allowed", errors=[found]) from error


def _check_enabled(endpoint: EndpointRow) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict(f"webhook {endpoint.name} is disabled ({endpoint.disabled_reason}); enable it first")
