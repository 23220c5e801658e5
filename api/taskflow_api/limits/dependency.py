"""The rate limits as a FastAPI dependency: it counts each request and sets the headers of its answer."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from fastapi import Request

from taskflow_api.gcra.limit import LimitState, headers
from taskflow_api.http.addresses import source
from taskflow_api.http.kubernetes_auth import Caller, Method
from taskflow_api.http.problems import ProblemError
from taskflow_api.limits.costs import cost
from taskflow_api.limits.limiter import Limiter
from taskflow_api.metrics import LIMITED

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
READS = frozenset({"GET", "HEAD"})


async def count(
    limiter: Limiter, caller: Caller | None, method: str, operation: str, namespace: str, address: str = ""
) -> list[LimitState]:
    """Count a request against its namespace and its caller, or its client address if it has no caller."""
    identity = caller.username if caller is not None else f"address:{address}"
    api_key = caller.subject if caller is not None and caller.method is Method.API_KEY else ""
    return await limiter.consume(
        identity, namespace, cost(method, operation), write=method not in READS, api_key=api_key
    )


def set_headers(state: MutableMapping[str, Any], limits: Sequence[LimitState]) -> dict[str, str]:
    """Report the limits in the headers of the answer, and return these headers."""
    found = headers(limits) if limits else {}
    state["headers"] = found
    return found


async def limited(request: Request) -> None:
    """Count the request. The headers of its answer report the limits, after a refusal too.

    Raises:
        ProblemError: 429, a limit is exhausted.
    """
    state: dict[str, Any] = request.scope["state"]
    operation = getattr(request.scope.get("route"), "operation_id", None) or ""
    limits: list[LimitState] | None = state.get("limits")
    if limits is None:
        address = source(request.scope)
        namespace = str(request.path_params.get("namespace", ""))
        limiter: Limiter = request.app.state.limiter
        limits = await count(limiter, state.get("caller"), request.method, operation, namespace, address)
    sent = set_headers(state, limits)
    violated = [each.limit.name for each in limits if not each.passes]
    for name in violated:
        LIMITED.labels(name).inc()
    if violated:
        raise ProblemError(
            429,
            f"this request costs {cost(request.method, operation)} units, which exceeds the rate limit of the "
            f"{' and the '.join(violated)}; try again in {sent['Retry-After']} s",
            code="quota-exceeded",
            members={"type": QUOTA_EXCEEDED, "violated-policies": violated},
        )
