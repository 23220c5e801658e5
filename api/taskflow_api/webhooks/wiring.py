"""Builds the webhook services of the API from its settings."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.settings import WebhookSettings
from taskflow_api.webhooks.deliveries import Deliveries, PostgresDeliveries
from taskflow_api.webhooks.endpoints import Endpoints, PostgresEndpoints
from taskflow_api.webhooks.secrets import Vault
from taskflow_api.webhooks.url_policy import Policy
from taskflow_core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhook services that routes use."""

    endpoints: Endpoints
    deliveries: Deliveries
    vault: Vault
    policy: Policy


def policy_of(settings: WebhookSettings) -> Policy:
    """The URL policy of the installation.

    Raises:
        Invalid: an allowed entry is neither an address, a network nor a host name.
    """
    try:
        return Policy.of(settings.ports, settings.allowed, http=settings.allow_http)
    except ValueError as error:
        raise Invalid(f"TASKFLOW_WEBHOOKS_ALLOWED: {error}") from error


def webhooks(engine: AsyncEngine, settings: WebhookSettings) -> Webhooks | None:
    """The services on the real database; None if webhooks are off.

    Raises:
        Invalid: there is no valid key, or an allowed entry is wrong.
    """
    if not settings.enabled:
        return None
    vault = Vault(settings.keys())
    return Webhooks(PostgresEndpoints(engine), PostgresDeliveries(engine), vault, policy_of(settings))
