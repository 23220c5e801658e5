"""Health routes: liveness, startup, readiness and version. They need no token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Response

from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import Services
from taskflow_core.domain.resource import Model
from taskflow_core.errors import TaskflowError

CHECK_SECONDS = 3.0
CACHE_SECONDS = 1.0
"""Results are shared for this long, because these routes need no token."""


class Check(Model):
    """The state of one dependency."""

    name: str
    ok: bool
    required: bool
    """If a required dependency is missing the process is unready, else degraded."""


class Health(Model):
    """The state of this process."""

    status: Literal["ok", "degraded", "unready"]
    checks: list[Check] | None = None


class Version(Model):
    """The version of the product."""

    version: str


class Readiness:
    """Checks all dependencies concurrently, at most once a second."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._lock = asyncio.Lock()
        self._cached: tuple[float, list[Check]] | None = None
        self.started = False
        """Whether the process has ever been ready."""

    async def checks(self) -> list[Check]:
        """The state of each dependency."""
        async with self._lock:
            if self._cached is None or self._clock() >= self._cached[0]:
                found = await asyncio.gather(
                    _check("kubernetes", self._services.kube.request("GET", "/version"), required=True),
                    _check("postgresql", self._services.history.check(), required=True),
                    _check("objects", asyncio.to_thread(self._services.objects.check), required=False),
                )
                self._cached = (self._clock() + CACHE_SECONDS, list(found))
                self.started |= all(check.ok for check in found if check.required)
            return self._cached[1]


async def _check(name: str, probe: Awaitable[object], *, required: bool) -> Check:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await probe
    except (TaskflowError, TimeoutError):
        return Check(name=name, ok=False, required=required)
    return Check(name=name, ok=True, required=required)


def router(services: Services) -> APIRouter:
    """The health routes."""
    routes = APIRouter(tags=["health"])
    readiness = Readiness(services)

    @routes.get(
        "/livez", operation_id="getLiveness", summary="Liveness: the process runs", response_model_exclude_none=True
    )
    async def livez() -> Health:
        return Health(status="ok")

    @routes.get(
        "/startupz",
        operation_id="getStartup",
        summary="Startup: the process has been ready",
        response_model_exclude_none=True,
        responses={503: {"model": Health, "description": "It has not been ready yet."}},
    )
    async def startupz(response: Response) -> Health:
        if not readiness.started:
            await readiness.checks()
        if not readiness.started:
            response.status_code = 503
        return Health(status="ok" if readiness.started else "unready")

    @routes.get(
        "/readyz",
        operation_id="getReadiness",
        summary="Readiness: Kubernetes and PostgreSQL answer",
        response_model_exclude_none=True,
        responses={503: {"model": Health, "description": "Not ready."}, 422: PROBLEMS[422]},
    )
    async def readyz(response: Response, verbose: str | None = None) -> Health:
        checks = await readiness.checks()
        status: Literal["ok", "degraded", "unready"] = "ok"
        if not all(check.ok for check in checks):
            status = "degraded" if all(check.ok for check in checks if check.required) else "unready"
        if status == "unready":
            response.status_code = 503
        return Health(status=status, checks=None if verbose is None else checks)

    @routes.get("/version", operation_id="getVersion", summary="Version of the product")
    async def get_version() -> Version:
        return Version(version=version("taskflow-operator"))

    return routes
