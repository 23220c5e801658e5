"""Calls for API keys. They cannot be authenticated with an API key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskflow_client.calls import Call, as_model, nothing, path, query
from taskflow_client.models import ApiKey, ApiKeys, NewApiKey


def create(
    namespace: str,
    service_account: str,
    *,
    scopes: Sequence[str],
    name: str = "",
    expiration_seconds: int | None = None,
) -> Call[NewApiKey]:
    """Create a key for a ServiceAccount. The answer shows the `key` only once.

    Args:
        namespace: Namespace of the ServiceAccount.
        service_account: Name of the ServiceAccount.
        scopes: `read`, `write` or both.
        name: A label for people.
        expiration_seconds: Lifetime of the key; 90 days by default.
    """
    body: dict[str, Any] = {"serviceAccount": service_account, "name": name, "scopes": list(scopes)}
    if expiration_seconds is not None:
        body["expirationSeconds"] = expiration_seconds
    return Call("POST", path(namespace, "apikeys"), as_model(NewApiKey), body=body)


def listed(namespace: str, *, service_account: str | None = None) -> Call[ApiKeys]:
    """List the keys of a namespace or of one ServiceAccount, without their secrets."""
    params = query(service_account=service_account)
    return Call("GET", path(namespace, "apikeys"), as_model(ApiKeys), params=params)


def get(namespace: str, key_id: str) -> Call[ApiKey]:
    """Get a key without its secret."""
    return Call("GET", path(namespace, "apikeys", key_id), as_model(ApiKey))


def rotate(namespace: str, key_id: str, *, grace_seconds: int | None = None) -> Call[NewApiKey]:
    """Replace a key. Both are valid until the grace period ends."""
    body = {} if grace_seconds is None else {"graceSeconds": grace_seconds}
    return Call("POST", path(namespace, "apikeys", key_id) + ":rotate", as_model(NewApiKey), body=body)


def revoke(namespace: str, key_id: str) -> Call[None]:
    """Revoke a key."""
    return Call("DELETE", path(namespace, "apikeys", key_id), nothing)
