"""The problem types of the API, a closed list, and the source of docs/reference/problems.md.

The `type` of a problem is `https://taskflow.dev/problems/` followed by its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One problem type: its HTTP status, what it means, and what the caller can do."""

    status: int
    meaning: str
    remedy: str


PROBLEM_TYPES: Mapping[str, ProblemType] = {
    "bad-request": ProblemType(400, "The request cannot be read.", "Correct it as `detail` says."),
    "bad-json": ProblemType(400, "The body is not JSON.", "Send one JSON value, encoded as UTF-8."),
    "bad-cursor": ProblemType(
        400,
        "The cursor belongs to another list or to other filters, or it has expired.",
        "Repeat the request without it, then follow `nextCursor` with the same filters.",
    ),
    "unauthenticated": ProblemType(
        401,
        "There is no token, or it is not valid: it has expired, was revoked, or is meant for another audience.",
        "Send `Authorization: Bearer` with a token of Kubernetes or of the OIDC issuer, an API key, or the token of an "
        "account.",
    ),
    "forbidden": ProblemType(
        403,
        "The caller is authenticated, but its RBAC in the namespace or the scopes of its key do not allow the request.",
        "`kubectl auth can-i VERB tasks.taskflow.dev -n NAMESPACE --as USER` shows what is missing. `detail` names the "
        "user, the verb and the resource.",
    ),
    "access-ended": ProblemType(
        403,
        "The last event (`problem`) of an open stream: the token has expired or was revoked, or the caller lost the "
        "permission.",
        "Reconnect with a valid token. If the caller has no access any more, that request is answered with 401 or 403.",
    ),
    "not-found": ProblemType(
        404,
        "The object does not exist in this namespace, and the history does not have it either.",
        "Check the name in the list. A deleted Task stays in the history.",
    ),
    "method-not-allowed": ProblemType(405, "The path does not have this method.", "`Allow` lists the methods it has."),
    "conflict": ProblemType(
        409,
        "An object of that name already exists, or the object is not in the state that the request needs.",
        "Choose another name. With an `Idempotency-Key`, a repeated creation returns the existing Task.",
    ),
    "still-running": ProblemType(
        409,
        "The `concurrencyPolicy` of the schedule is Forbid, and an earlier run is not finished. `detail` names it.",
        "Wait for its end, cancel it, or choose another policy.",
    ),
    "changed-since": ProblemType(
        412,
        "`If-Match` does not name the current version.",
        "Read the object again, check whether the change is still wanted, and send it with the new `ETag`.",
    ),
    "too-large": ProblemType(
        413,
        "The body is larger than 1 MiB.",
        "Send large data as an upload, and name its key in `inputs` of the Task.",
    ),
    "payload-too-large": ProblemType(
        413,
        "args and kwargs together are longer than 8 KiB as JSON.",
        "Store them as a file and name it in `inputs`.",
    ),
    "unsupported-media-type": ProblemType(
        415, "The Content-Type of the body is not JSON.", "Send `Content-Type: application/json`."
    ),
    "range-not-satisfiable": ProblemType(
        416, "The range starts after the end of the log.", "`Content-Range` has the length of the log."
    ),
    "invalid": ProblemType(
        422,
        "The request does not match its schema, or the API server rejects it.",
        "Each entry of `errors` names the place (`location` and a JSON Pointer) and what is expected there.",
    ),
    "idempotency-key-reused": ProblemType(
        422,
        "The Idempotency-Key was already used with another body.",
        "Use a new key for each piece of work.",
    ),
    "too-slow": ProblemType(
        408,
        "The request did not arrive in time: its headers as a whole, or enough of its body.",
        "Send it again, without a pause.",
    ),
    "headers-too-large": ProblemType(431, "The headers are larger than 64 KiB.", "Send smaller ones."),
    "too-many-requests": ProblemType(429, "The caller sent too many requests.", "Try again after `Retry-After`."),
    "quota-exceeded": ProblemType(
        429,
        "A rate limit has too few units left for this request. Its `type` is the registered "
        "`https://iana.org/assignments/http-problem-types#quota-exceeded`; `violated-policies` names the limits.",
        "Try again after `Retry-After`. The `RateLimit` header of each answer has the remaining units.",
    ),
    "too-many-streams": ProblemType(
        429, "The caller has too many event streams and followed logs open.", "Close one of them."
    ),
    "too-many-operations": ProblemType(
        429, "Too many operations run in the namespace.", "Wait until one finishes, or delete it."
    ),
    "internal": ProblemType(
        500, "The server failed. The answer has no details.", "Find the request in the server log by its `requestId`."
    ),
    "unavailable": ProblemType(
        503,
        "Kubernetes, PostgreSQL, Redis or the object store does not answer.",
        "Try again after `Retry-After`. `/readyz?verbose` says which one does not answer.",
    ),
}
