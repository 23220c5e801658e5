"""Calls for webhooks: endpoints that receive messages about finished Tasks, and the deliveries to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from taskflow_client.calls import Call, as_model, nothing, path, query
from taskflow_client.models import Delivery, DeliveryPage, NewWebhook, Webhook, Webhooks


def create(
    namespace: str, name: str, url: str, *, types: Sequence[str] | None = None, tasks: str = "All"
) -> Call[NewWebhook]:
    """Create an endpoint. The answer shows the `secret` only once.

    Args:
        namespace: Namespace of the Tasks.
        name: The name that Tasks use in `notify`.
        url: Where messages are sent.
        types: Types of messages, such as `task.failed`; all by default.
        tasks: `All`, or `Named` for Tasks that name the endpoint.
    """
    body: dict[str, Any] = {"name": name, "url": url, "tasks": tasks}
    if types is not None:
        body["types"] = list(types)
    return Call("POST", path(namespace, "webhooks"), as_model(NewWebhook), body=body)


def listed(namespace: str) -> Call[Webhooks]:
    """List the endpoints of a namespace by name, without their secrets."""
    return Call("GET", path(namespace, "webhooks"), as_model(Webhooks))


def get(namespace: str, name: str) -> Call[Webhook]:
    """Get an endpoint without its secret."""
    return Call("GET", path(namespace, "webhooks", name), as_model(Webhook))


def change(namespace: str, name: str, **values: Any) -> Call[Webhook]:
    """Set `url`, `types`, `tasks` or `enabled`. Fields that are left out stay."""
    return Call("PATCH", path(namespace, "webhooks", name), as_model(Webhook), body=values)


def rotate(namespace: str, name: str, *, grace_seconds: int | None = None) -> Call[NewWebhook]:
    """Rotate the secret. Until the grace period ends, messages are signed with both secrets."""
    body = {} if grace_seconds is None else {"graceSeconds": grace_seconds}
    return Call("POST", path(namespace, "webhooks", name) + ":rotate", as_model(NewWebhook), body=body)


def test(namespace: str, name: str) -> Call[Delivery]:
    """Send a test message (`webhook.test`)."""
    return Call("POST", path(namespace, "webhooks", name) + ":test", as_model(Delivery))


def delete(namespace: str, name: str) -> Call[None]:
    """Delete an endpoint and its deliveries."""
    return Call("DELETE", path(namespace, "webhooks", name), nothing)


def deliveries(namespace: str, name: str, *, state: str | None = None, limit: int | None = None) -> Call[DeliveryPage]:
    """List deliveries, newest first. `Client.pages` gets all pages."""
    params = query(state=state, limit=limit)

    def following(page: DeliveryPage) -> Call[DeliveryPage] | None:
        return replace(call, params=params | {"cursor": page.next_cursor}) if page.next_cursor else None

    where = path(namespace, "webhooks", name, "deliveries")
    call = Call("GET", where, as_model(DeliveryPage), params=params, following=following)
    return call


def delivery(namespace: str, name: str, delivery_id: str) -> Call[Delivery]:
    """Get a delivery with its latest attempts."""
    return Call("GET", path(namespace, "webhooks", name, "deliveries", delivery_id), as_model(Delivery))


def replay(namespace: str, name: str, delivery_id: str) -> Call[Delivery]:
    """Replay a delivery."""
    where = path(namespace, "webhooks", name, "deliveries", delivery_id) + ":replay"
    return Call("POST", where, as_model(Delivery))
