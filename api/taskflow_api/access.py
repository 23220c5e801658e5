"""Dependencies of the routes: validated names, and the right to do what the route does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer
from starlette.convertors import StringConvertor, register_url_convertor

from taskflow_api.auth import Caller, Resource, Scope
from taskflow_api.problems import ProblemError
from taskflow_api.services import Services, services_of
from taskflow_core.domain import naming


class _Part(StringConvertor):
    regex = "[^/:]+"


# What a colon ends in a path: `NAME:cancel` is no name but something to do with one.
register_url_convertor("part", _Part())
LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"{LABEL}(\.{LABEL})*"
MAX_LABEL_CHARS, MAX_NAME_CHARS = 63, 253
READS = frozenset({"get", "list", "watch"})

Namespace = Annotated[str, Path(max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$", description="A DNS label.")]
TaskName = Annotated[str, Path(max_length=MAX_NAME_CHARS, pattern=f"^{DNS_NAME}$", description="A DNS name.")]


async def _services(request: Request) -> Services:
    # FastAPI calls what is no coroutine function in a thread.
    return services_of(request)


InServices = Annotated[Services, Depends(_services)]

# The middleware has checked the token by now; this declares the scheme in OpenAPI.
_TOKENS = "A token of Kubernetes or of the OIDC issuer, an API key, or the token of an account."
bearer = Security(HTTPBearer(auto_error=False, description=_TOKENS, scheme_name="bearer"))


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
    request: Request, services: Services, verb: str, plural: str, namespace: str, name: str = ""
) -> Caller:
    caller: Caller = request.state.caller
    resource = Resource(naming.GROUP, plural)
    if verb not in READS:
        audit(request, caller, verb, plural, namespace, name)
    await demand(services, caller, verb, resource, namespace, name)
    return caller


def audit(request: Request, caller: Caller, verb: str, resource: str, namespace: str, name: str) -> None:
    """Have the log say, once it is answered, who asked for this: the identity, and by which key or account."""
    request.state.audit = {
        "user": caller.username,
        "method": caller.method.value,
        "subject": caller.subject,
        "verb": verb,
        "resource": resource,
        "namespace": namespace,
        "name": name,
    }


async def demand(
    services: Services, caller: Caller, verb: str, resource: Resource, namespace: str, name: str = ""
) -> None:
    """Refuse unless the caller's scopes and RBAC both allow it.

    Raises:
        ProblemError: 403.
        Unavailable: the API server does not answer.
    """
    needed = Scope.READ if verb in READS else Scope.WRITE
    if not caller.holds(needed):
        had = ", ".join(sorted(caller.scopes or ()))
        raise ProblemError(403, f"API key {caller.subject} has the scopes {had}; this needs {needed}")
    if not await services.gate.allows(caller, verb, namespace, name, resource=resource):
        raise ProblemError(403, f"{caller.username} may not {verb} {resource} in namespace {namespace}")
