"""Dependencies of the routes: validated names, and the right to do what the route does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from taskflow_api.auth import Caller
from taskflow_api.problems import ProblemError
from taskflow_api.services import Services, services_of
from taskflow_core.domain import naming

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
WRITES = frozenset({"create", "patch", "delete"})

Namespace = Annotated[str, Path(max_length=63, pattern=f"^{LABEL}$", description="A DNS label.")]
TaskName = Annotated[str, Path(max_length=253, pattern=rf"^{LABEL}(\.{LABEL})*$", description="A DNS name.")]
InServices = Annotated[Services, Depends(services_of)]

# The middleware has checked the token by now; this declares the scheme in OpenAPI.
bearer = Security(HTTPBearer(auto_error=False, description="A Kubernetes token.", scheme_name="kubernetesToken"))


def may(verb: str, resource: str = "tasks") -> Callable[[Request, str, Services], Awaitable[Caller]]:
    """A dependency: the caller may `verb` this resource of taskflow.dev in the namespace of the path."""

    async def check(request: Request, namespace: Namespace, services: InServices) -> Caller:
        return await _check(request, services, verb, resource, namespace)

    return check


def may_on(verb: str, resource: str = "tasks") -> Callable[[Request, str, str, Services], Awaitable[Caller]]:
    """A dependency: the caller may `verb` the Task, or the other resource, of the path."""

    async def check(request: Request, namespace: Namespace, name: TaskName, services: InServices) -> Caller:
        return await _check(request, services, verb, resource, namespace, name)

    return check


async def _check(
    request: Request, services: Services, verb: str, resource: str, namespace: str, name: str = ""
) -> Caller:
    caller: Caller = request.state.caller
    if verb in WRITES:
        request.state.audit = {"user": caller.username, "verb": verb, "namespace": namespace, "name": name}
        if resource != "tasks":
            request.state.audit["resource"] = resource
    if not await services.gate.allows(caller, verb, namespace, name, resource=resource):
        raise ProblemError(403, f"{caller.username} may not {verb} {resource}.{naming.GROUP} in namespace {namespace}")
    return caller
