"""The services that routes of several features share, as one value on the application. It does not create them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from taskflow_api.http.kubernetes_auth import Caller, KubernetesAuth
from taskflow_api.http.read_cache import ReadCache
from taskflow_api.ports import History, Kube, Objects, Queues


@dataclass(frozen=True, slots=True)
class Services:
    """The services that routes use."""

    kube: Kube
    history: History
    objects: Objects
    auth: KubernetesAuth
    authenticate: Callable[[str], Awaitable[Caller | None]]
    """Resolves a bearer token of any kind to its caller; None if it is not valid. Raises Unavailable."""
    queues: Queues | None = None
    """None if this installation gives the API no access to the broker."""
    cache: ReadCache = field(default_factory=lambda: ReadCache(None))

    def now(self) -> datetime:
        """The current time."""
        return datetime.now(UTC)


def services_of(request: Request) -> Services:
    """The services of the application that received the request."""
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:
    # A coroutine function, because FastAPI runs other dependencies in a thread.
    return services_of(request)


InServices = Annotated[Services, Depends(_services)]
