from __future__ import annotations

from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from taskflow_api import artifacts, documented, health, problems
from taskflow_api.access import bearer
from taskflow_api.files import multipart
from taskflow_api.files import routes as files
from taskflow_api.identity import authroutes, keyroutes
from taskflow_api.limits.limiting import limited
from taskflow_api.live import logs, streams
from taskflow_api.middleware import OPEN_PATHS, Authentication, RequestFrame
from taskflow_api.operations import routes as operations
from taskflow_api.pools import routes as pools
from taskflow_api.services import Services
from taskflow_api.shortcut import KeptAnswers
from taskflow_api.tasks import batch, changing, items, routes
from taskflow_api.waiting import routes as waiting
from taskflow_api.webhooks import routes as webhooks


def create_app(services: Services) -> FastAPI:
    """The REST API on these services.

    No page for `/docs`: FastAPI's loads scripts from other sites.
    """
    app = FastAPI(
        title="TaskFlow",
        version=version("taskflow-operator"),
        description="Tasks over REST. The caller is a Kubernetes identity, and its RBAC decides.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    problems.install(app)
    open_routes = health.router(services)
    app.include_router(open_routes)
    guarded = (
        batch.router,
        changing.router,
        items.router,
        routes.router,
        artifacts.router,
        files.router,
        multipart.router,
        streams.router,
        logs.router,
        waiting.router,
        pools.router,
        operations.router,
        keyroutes.router,
        webhooks.router,
    )
    for router in guarded:
        app.include_router(router, dependencies=[bearer, Depends(limited)])
    app.state.routes = [route for router in (open_routes, *guarded) for route in router.routes]
    open_paths = OPEN_PATHS
    if services.identity.accounts is not None:
        logins = authroutes.router(services.identity.accounts)
        app.include_router(logins, dependencies=[Depends(limited)])
        app.state.routes += logins.routes
        open_paths |= authroutes.PATHS
    documented.describe(app)
    # The last one added is the outermost.
    (task,) = (
        route for route in routes.router.routes if isinstance(route, APIRoute) and route.operation_id == "getTask"
    )
    app.add_middleware(KeptAnswers, services=services, route=task)
    app.add_middleware(Authentication, authenticate=services.identity.tokens.authenticate, open_paths=open_paths)
    app.add_middleware(RequestFrame)
    return app
