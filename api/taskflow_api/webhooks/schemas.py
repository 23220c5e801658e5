from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from taskflow_api.tasks.schemas import Body, WebhookName, examples
from taskflow_api.webhooks.deliveries import DeliveryRow
from taskflow_api.webhooks.endpoints import EndpointRow
from taskflow_api.webhooks.guard import MAX_URL_CHARS
from taskflow_core.domain.resource import Model

EventType = Literal["task.succeeded", "task.failed", "task.cancelled"]
ALL_TYPES: tuple[EventType, ...] = ("task.succeeded", "task.failed", "task.cancelled")
TEST = "webhook.test"
"""Type of a delivery that no Task is behind."""
MAX_GRACE_SECONDS = 7 * 86400

Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_CHARS)]
Types = Annotated[list[EventType], Field(min_length=1, max_length=len(ALL_TYPES))]


class WebhookBody(Body):
    """An endpoint to be made."""

    model_config = examples({"name": "billing", "url": "https://hooks.example.com/taskflow"})

    name: WebhookName
    """By which Tasks name it in `spec.notify`."""
    url: Url
    """https, and of the Internet unless the installation allows others."""
    types: Types = Field(default_factory=lambda: list(ALL_TYPES))
    """Which ends it is told of."""
    tasks: Literal["All", "Named"] = "All"
    """`All` Tasks of the namespace, or those `Named` it in `spec.notify`."""


class WebhookChangeBody(Body):
    """What may change of an endpoint; what is left out stays."""

    model_config = examples({"tasks": "Named"}, {"enabled": False})

    url: Url = ""
    types: Types = Field(default_factory=lambda: list(ALL_TYPES))
    tasks: Literal["All", "Named"] = "All"
    enabled: bool = True
    """False: it gets nothing, and what waits for it is given up."""

    @model_validator(mode="after")
    def _something(self) -> WebhookChangeBody:
        if not self.model_fields_set:
            raise ValueError("expected something to change")
        return self


class RotateSecretBody(Body):
    """How long messages are signed with the old secret too."""

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
    """`Gone`: it answered 410. `Disabled`: somebody said so."""
    disabled_at: datetime | None
    created_at: datetime
    created_by: str
    old_secret_until: datetime | None
    """Until then messages have two signatures."""


class NewWebhookView(WebhookView):
    """An endpoint with its secret, which is told this once."""

    secret: str


class WebhookList(Model):
    """Endpoints by name."""

    items: list[WebhookView]


class AttemptView(Model):
    """One attempt to deliver."""

    at: datetime
    status: int | None
    """Of the answer; null without one."""
    error: str
    milliseconds: int
    answer: str
    """The first KiB of its body, as text."""


class DeliveryView(Model):
    """A message for one endpoint."""

    id: str
    webhook: str
    event_id: str
    """The header `webhook-id`."""
    type: str
    task_name: str | None
    task_uid: str | None
    state: Literal["Pending", "Delivered", "Failed"]
    attempts: int
    """Since it was made, or replayed."""
    tries: list[AttemptView]
    """The latest 20, oldest first, those before a replay too."""
    payload: dict[str, Any]
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None


class DeliveryPage(Model):
    """Deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None


def fields(row: EndpointRow) -> dict[str, Any]:
    """What may be told of an endpoint, by the names of `WebhookView`."""
    same = {name: getattr(row, name) for name in WebhookView.model_fields if hasattr(row, name)}
    return same | {"tasks": "All" if row.every_task else "Named", "enabled": row.disabled_at is None}


def view(row: EndpointRow) -> WebhookView:
    """What may be told of an endpoint."""
    return WebhookView.model_validate(fields(row))


def delivery_view(webhook: str, row: DeliveryRow) -> DeliveryView:
    """As it is told."""
    same = {name: getattr(row, name) for name in DeliveryView.model_fields if hasattr(row, name)}
    return DeliveryView.model_validate(
        same | {"webhook": webhook, "payload": json.loads(row.payload), "next_attempt_at": row.next_at}
    )
