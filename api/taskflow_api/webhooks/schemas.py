"""Request and response bodies of webhook endpoints and deliveries."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from taskflow_api.http.body import Body, WebhookName, examples
from taskflow_api.webhooks.deliveries import DeliveryRow
from taskflow_api.webhooks.endpoints import EndpointRow
from taskflow_api.webhooks.url_policy import MAX_URL_CHARS
from taskflow_core.domain.resource import Model

EventType = Literal["task.succeeded", "task.failed", "task.cancelled"]
ALL_TYPES: tuple[EventType, ...] = ("task.succeeded", "task.failed", "task.cancelled")
TEST = "webhook.test"
"""The type of test messages, which have no Task."""
MAX_GRACE_SECONDS = 7 * 86400

Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_CHARS)]
Types = Annotated[list[EventType], Field(min_length=1, max_length=len(ALL_TYPES))]


class WebhookBody(Body):
    """An endpoint to create."""

    model_config = examples({"name": "billing", "url": "https://hooks.example.com/taskflow"})

    name: WebhookName
    """The name that Tasks use in `spec.notify`."""
    url: Url
    """A public https URL, unless the installation allows others."""
    types: Types = Field(default_factory=lambda: list(ALL_TYPES))
    """The types of messages to send."""
    tasks: Literal["All", "Named"] = "All"
    """`All` Tasks of the namespace, or only those that name the endpoint in `spec.notify` (`Named`)."""


class WebhookChangeBody(Body):
    """A change of an endpoint. Fields that are left out stay."""

    model_config = examples({"tasks": "Named"}, {"enabled": False})

    url: Url = ""
    types: Types = Field(default_factory=lambda: list(ALL_TYPES))
    tasks: Literal["All", "Named"] = "All"
    enabled: bool = True
    """False disables the endpoint and fails its pending deliveries."""

    @model_validator(mode="after")
    def _not_empty(self) -> WebhookChangeBody:
        if not self.model_fields_set:
            raise ValueError("expected at least one field to change")
        return self


class RotateSecretBody(Body):
    """How long messages are also signed with the old secret."""

    model_config = examples({"graceSeconds": 3600})

    grace_seconds: Annotated[int, Field(ge=0, le=MAX_GRACE_SECONDS)] = 86400


class WebhookView(Model):
    """An endpoint, without its secret."""

    name: str
    namespace: str
    url: str
    types: list[str]
    tasks: Literal["All", "Named"]
    enabled: bool
    disabled_reason: str
    """`Gone`: it answered 410. `Disabled`: a caller disabled it."""
    disabled_at: datetime | None
    created_at: datetime
    created_by: str
    old_secret_until: datetime | None
    """Until then, messages have two signatures."""


class NewWebhookView(WebhookView):
    """An endpoint with its secret, which is shown only once."""

    secret: str


class WebhookList(Model):
    """The endpoints of a namespace, by name."""

    items: list[WebhookView]


class DeliveryAttemptView(Model):
    """An attempt to deliver."""

    at: datetime
    status: int | None
    """The HTTP status; null if there was no response."""
    error: str
    milliseconds: int
    answer: str
    """The first KiB of the response body, as text."""


class DeliveryView(Model):
    """A message to one endpoint."""

    id: str
    webhook: str
    event_id: str
    """The header `webhook-id`."""
    type: str
    task_name: str | None
    task_uid: str | None
    state: Literal["Pending", "Delivered", "Failed"]
    attempts: int
    """Since the delivery was created or replayed."""
    tries: list[DeliveryAttemptView]
    """The latest 20 attempts, oldest first, including those before a replay."""
    payload: dict[str, Any]
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None


class DeliveryPage(Model):
    """A page of deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None


def fields(row: EndpointRow) -> dict[str, Any]:
    """The public fields of an endpoint, by the names of `WebhookView`."""
    same = {name: getattr(row, name) for name in WebhookView.model_fields if hasattr(row, name)}
    return same | {"tasks": "All" if row.every_task else "Named", "enabled": row.disabled_at is None}


def view(row: EndpointRow) -> WebhookView:
    """The response body of an endpoint."""
    return WebhookView.model_validate(fields(row))


def delivery_view(webhook: str, row: DeliveryRow) -> DeliveryView:
    """The response body of a delivery."""
    same = {name: getattr(row, name) for name in DeliveryView.model_fields if hasattr(row, name)}
    return DeliveryView.model_validate(
        same | {"webhook": webhook, "payload": json.loads(row.payload), "next_attempt_at": row.next_at}
    )
