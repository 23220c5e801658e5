"""The limits at each route: a dependency that counts, and the headers that tell."""

from __future__ import annotations

from fastapi import Request

from taskflow_api.auth import Caller, Method
from taskflow_api.limits.policy import cost, headers
from taskflow_api.metrics import LIMITED
from taskflow_api.problems import ProblemError
from taskflow_api.services import services_of

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
READS = frozenset({"GET", "HEAD"})


async def limited(request: Request) -> None:
    """Count the request against its caller and its namespace. The answer's headers say what is left, on a refusal too.

    Raises:
        ProblemError: 429, one of them has no units left.
    """
    limiter = services_of(request).limiter
    caller: Caller | None = getattr(request.state, "caller", None)
    who = caller.username if caller is not None else f"address:{request.client.host if request.client else ''}"
    operation = getattr(request.scope.get("route"), "operation_id", None) or ""
    units = cost(request.method, operation)
    namespace = str(request.path_params.get("namespace", ""))
    api_key = caller.subject if caller is not None and caller.method is Method.API_KEY else ""
    standings = await limiter.take(who, namespace, units, write=request.method not in READS, api_key=api_key)
    if not standings:
        return
    told = headers(standings)
    request.state.headers = told
    violated = [each.limit.name for each in standings if not each.passes]
    for name in violated:
        LIMITED.labels(name).inc()
    if violated:
        raise ProblemError(
            429,
            f"this request costs {units}, and {' and '.join(violated)} may not take so much now; "
            f"come again in {told['Retry-After']} s",
            code="quota-exceeded",
            members={"type": QUOTA_EXCEEDED, "violated-policies": violated},
        )
