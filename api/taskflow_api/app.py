"""The FastAPI application of the REST API: its routes and middleware. It creates none of its components."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from taskflow_api import health
from taskflow_api.cached_answers import CachedAnswers
from taskflow_api.files import artifacts, multipart, uploads
from taskflow_api.files import routes as files
from taskflow_api.handlers import routes as handlers
from taskflow_api.http import openapi, problems
from taskflow_api.http.access import bearer
from taskflow_api.http.middleware import OPEN_PATHS, Authentication, HeadersOnly, RequestFrame
from taskflow_api.http.repetitions import without_repetitions
from taskflow_api.identity import account_routes, key_routes
from taskflow_api.limits.dependency import limited
from taskflow_api.live import logs, streams
from taskflow_api.operations import routes as operations
from taskflow_api.pages.site import Pages
from taskflow_api.pools import routes as pools
from taskflow_api.schedules import backfill_routes as schedule_backfills
from taskflow_api.schedules import history_routes as schedule_history
from taskflow_api.schedules import preview_routes as schedule_previews
from taskflow_api.schedules import routes as schedules
from taskflow_api.schedules import run_routes as schedule_runs
from taskflow_api.tasks import batch_routes, change_routes, item_routes, routes, run_once_routes
from taskflow_api.waiting import routes as waiting
from taskflow_api.webhooks import routes as webhooks
from taskflow_api.wiring import Components

_GUARDED = (
    batch_routes.router,
    change_routes.router,
    item_routes.router,
    run_once_routes.router,
    routes.router,
    artifacts.router,
    uploads.router,
    files.router,
    multipart.router,
    streams.router,
    logs.router,
    waiting.router,
    pools.router,
    handlers.router,
    schedules.router,
    schedule_backfills.router,
    schedule_runs.router,
    schedule_previews.router,
    schedule_history.router,
    operations.router,
    key_routes.router,
    webhooks.router,
)
"""Routers whose routes need a caller."""


def create_app(components: Components) -> FastAPI:
    """The REST API on these components.

    `/docs` is not FastAPI's, which loads scripts from other sites.
    """
    services = components.services
    app = FastAPI(
        title="TaskFlow",
        version=version("taskflow-operator"),
        description="Tasks over REST. The caller is a Kubernetes identity, and its RBAC decides what it may do.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    app.state.identity = components.identity
    app.state.hub = components.hub
    app.state.limiter = components.limiter
    app.state.webhooks = components.webhooks
    problems.install(app)
    open_routes = health.router(services)
    app.include_router(open_routes, dependencies=[Depends(without_repetitions)])
    for router in _GUARDED:
        app.include_router(router, dependencies=[bearer, Depends(limited), Depends(without_repetitions)])
    app.state.routes = [route for router in (open_routes, *_GUARDED) for route in router.routes]
    open_paths = OPEN_PATHS
    if components.identity.accounts is not None:
        logins = account_routes.router(components.identity.accounts)
        app.include_router(logins, dependencies=[Depends(limited), Depends(without_repetitions)])
        app.state.routes += logins.routes
        open_paths |= account_routes.PATHS
    openapi.describe(app)
    # Starlette makes the middleware that is added last the outermost.
    (task,) = (
        route for route in routes.router.routes if isinstance(route, APIRoute) and route.operation_id == "getTask"
    )
    app.add_middleware(CachedAnswers, services=services, limiter=components.limiter, route=task)
    app.add_middleware(Authentication, authenticate=services.authenticate, open_paths=open_paths)
    app.add_middleware(Pages, document=app.openapi)
    app.add_middleware(HeadersOnly)
    app.add_middleware(RequestFrame)
    return app
