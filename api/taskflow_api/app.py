from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from taskflow_api import artifacts, documented, health, problems
from taskflow_api.access import bearer
from taskflow_api.middleware import Authentication, RequestFrame
from taskflow_api.services import Services
from taskflow_api.tasks import batch, changing, items, routes


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
    app.include_router(health.router(services))
    for router in (batch.router, changing.router, items.router, routes.router, artifacts.router):
        app.include_router(router, dependencies=[bearer])
    documented.describe(app)
    # The last one added is the outermost.
    app.add_middleware(Authentication, gate=services.gate)
    app.add_middleware(RequestFrame)
    return app
