from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.settings import WebhookSettings
from taskflow_api.webhooks.deliveries import Deliveries, PostgresDeliveries
from taskflow_api.webhooks.endpoints import Endpoints, PostgresEndpoints
from taskflow_api.webhooks.guard import Policy
from taskflow_api.webhooks.secrets import Vault
from taskflow_core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What routes do with webhooks."""

    endpoints: Endpoints
    deliveries: Deliveries
    vault: Vault
    policy: Policy


def policy_of(settings: WebhookSettings) -> Policy:
    """Which URLs this installation allows.

    Raises:
        Invalid: an entry is neither address, network nor name.
    """
    try:
        return Policy.of(settings.ports, settings.allowed, http=settings.allow_http)
    except ValueError as error:
        raise Invalid(f"TASKFLOW_WEBHOOKS_ALLOWED: {error}") from error


def webhooks(engine: AsyncEngine, settings: WebhookSettings) -> Webhooks | None:
    """On the real database; None when they are off.

    Raises:
        Invalid: there is no usable key, or an allowed entry is wrong.
    """
    if not settings.enabled:
        return None
    vault = Vault(settings.keys())
    return Webhooks(PostgresEndpoints(engine), PostgresDeliveries(engine), vault, policy_of(settings))
