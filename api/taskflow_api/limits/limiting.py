"""The limits at each route: a dependency that counts, and the headers that tell."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from fastapi import Request

from taskflow_api.auth import Caller, Method
from taskflow_api.limits.limiter import Limiter
from taskflow_api.limits.policy import Standing, cost, headers
from taskflow_api.metrics import LIMITED
from taskflow_api.problems import ProblemError
from taskflow_api.services import services_of

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
READS = frozenset({"GET", "HEAD"})


async def take(
    limiter: Limiter, caller: Caller | None, method: str, operation: str, namespace: str, address: str = ""
) -> list[Standing]:
    """Count a request against its caller, or the address of one that has no caller, and its namespace."""
    who = caller.username if caller is not None else f"address:{address}"
    api_key = caller.subject if caller is not None and caller.method is Method.API_KEY else ""
    return await limiter.take(who, namespace, cost(method, operation), write=method not in READS, api_key=api_key)


def tell(state: MutableMapping[str, Any], standings: Sequence[Standing]) -> dict[str, str]:
    """Have the answer's headers say what is left."""
    told = headers(standings) if standings else {}
    state["headers"] = told
    return told


async def limited(request: Request) -> None:
    """Count the request against its caller and its namespace. The answer's headers say what is left, on a refusal too.

    Raises:
        ProblemError: 429, one of them has no units left.
    """
    state: dict[str, Any] = request.scope["state"]
    operation = getattr(request.scope.get("route"), "operation_id", None) or ""
    standings: list[Standing] | None = state.get("standings")
    if standings is None:
        address = request.client.host if request.client else ""
        namespace = str(request.path_params.get("namespace", ""))
        limiter = services_of(request).limiter
        standings = await take(limiter, state.get("caller"), request.method, operation, namespace, address)
    told = tell(state, standings)
    violated = [each.limit.name for each in standings if not each.passes]
    for name in violated:
        LIMITED.labels(name).inc()
    if violated:
        raise ProblemError(
            429,
            f"this request costs {cost(request.method, operation)}, and {' and '.join(violated)} may not take so much now; "
            f"come again in {told['Retry-After']} s",
            code="quota-exceeded",
            members={"type": QUOTA_EXCEEDED, "violated-policies": violated},
        )
