"""Access checks of the routes: dependencies that require a permission, and the audit record of changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from taskflow_api.http.kubernetes_auth import Caller, Resource, Scope
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_core.domain import naming

READS = frozenset({"get", "list", "watch"})

# The middleware has already checked the token. This declares the scheme in the OpenAPI document.
_TOKENS = "A token of Kubernetes or of the OIDC issuer, an API key, or the token of an account."
bearer = Security(HTTPBearer(auto_error=False, description=_TOKENS, scheme_name="bearer"))


def may(verb: str, resource: str = "tasks") -> Callable[[Request, str, Services], Awaitable[Caller]]:
    """A dependency: the caller may `verb` this resource of taskflow.dev in the namespace of the path."""

    async def check(request: Request, namespace: Namespace, services: InServices) -> Caller:
        return await _check(request, services, verb, resource, namespace)

    return check


def may_on(verb: str, resource: str = "tasks") -> Callable[[Request, str, str, Services], Awaitable[Caller]]:
    """A dependency: the caller may `verb` the named resource of the path."""

    async def check(request: Request, namespace: Namespace, name: Name, services: InServices) -> Caller:
        return await _check(request, services, verb, resource, namespace, name)

    return check


async def _check(
    request: Request, services: Services, verb: str, plural: str, namespace: str, name: str = ""
) -> Caller:
    caller: Caller = request.state.caller
    resource = Resource(naming.GROUP, plural)
    if verb not in READS:
        audit(request, caller, verb, plural, namespace, name)
    await require(services, caller, verb, resource, namespace, name)
    return caller


def audit(request: Request, caller: Caller, verb: str, resource: str, namespace: str, name: str) -> None:
    """Set the audit record of the request, which the middleware logs with the status of the answer."""
    request.state.audit = {
        "user": caller.username,
        "method": caller.method.value,
        "subject": caller.subject,
        "verb": verb,
        "resource": resource,
        "namespace": namespace,
        "name": name,
    }


async def require(
    services: Services, caller: Caller, verb: str, resource: Resource, namespace: str, name: str = ""
) -> None:
    """Refuse the request unless the caller's scopes and RBAC both allow it.

    Raises:
        ProblemError: 403.
        Unavailable: the API server does not answer.
    """
    needed = Scope.READ if verb in READS else Scope.WRITE
    if not caller.holds(needed):
        scopes = ", ".join(sorted(caller.scopes or ()))
        raise ProblemError(403, f"API key {caller.subject} has only the scopes {scopes}; this request needs {needed}")
    if not await services.auth.allows(caller, verb, namespace, name, resource=resource):
        raise ProblemError(403, f"{caller.username} may not {verb} {resource} in namespace {namespace}")
