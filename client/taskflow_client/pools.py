"""Calls for WorkerPools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taskflow_client.calls import Call, as_model, path
from taskflow_client.models import Pool, PoolPage


def listed(namespace: str) -> Call[PoolPage]:
    """List pools by name. `Client.pages` gets all pages."""

    def following(page: PoolPage) -> Call[PoolPage] | None:
        return replace(call, params={"cursor": page.next_cursor}) if page.next_cursor else None

    call = Call("GET", path(namespace, "pools"), as_model(PoolPage), following=following)
    return call


def get(namespace: str, name: str) -> Call[Pool]:
    """Get a pool."""
    return Call("GET", path(namespace, "pools", name), as_model(Pool))


def change(namespace: str, name: str, **spec: Any) -> Call[Pool]:
    """Set `paused` or `drain`."""
    return Call("PATCH", path(namespace, "pools", name), as_model(Pool), body={"spec": spec})
