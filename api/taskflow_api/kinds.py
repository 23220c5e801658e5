"""The kinds of problems, a closed list: `type` of a problem is `https://taskflow.dev/problems/` and the code. docs/reference/problems.md is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One of them."""

    status: int
    meaning: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "The request cannot be read.", "Correct it as `detail` says."),
    "bad-json": Kind(400, "The body is not JSON.", "Send one JSON value, encoded as UTF-8."),
    "bad-cursor": Kind(
        400,
        "The cursor is of another list, of other filters, or too old.",
        "Ask again without it, and follow `nextCursor` with the same filters.",
    ),
    "unauthenticated": Kind(
        401,
        "There is no token, or it is not valid: expired, revoked, or made for somebody else.",
        "Send `Authorization: Bearer` with a token of Kubernetes, of the OIDC issuer, an API key or the token of an account.",
    ),
    "forbidden": Kind(
        403,
        "The caller is known and may not do this: its RBAC in the namespace, or the scopes of its key, do not allow it.",
        "`kubectl auth can-i VERB tasks.taskflow.dev -n NAMESPACE --as USER` shows what is missing; `detail` names user, verb and resource.",
    ),
    "access-ended": Kind(
        403,
        "Event `problem` of a stream that was open, its last one: its token expired or was revoked, or its caller lost the right.",
        "Come back with another token. That request is answered 401 or 403, if it is not let in either.",
    ),
    "account-not-bound": Kind(
        403,
        "The account stands for no ServiceAccount yet.",
        "Have an administrator bind it: `python -m taskflow_api accounts bind`.",
    ),
    "not-found": Kind(
        404,
        "There is no such thing in this namespace, and the history knows none.",
        "Look at the list. A Task that was deleted is kept in the history.",
    ),
    "method-not-allowed": Kind(405, "The path has no such method.", "`Allow` names those that it has."),
    "conflict": Kind(
        409,
        "Something of that name is there already, or it is not in the state that this needs.",
        "Take another name; or an `Idempotency-Key`, by which a repeated creation is answered with the Task that is there.",
    ),
    "changed-since": Kind(
        412,
        "What `If-Match` names is not the present version.",
        "Read it again, look whether the change is still wanted, and send it with the new `ETag`.",
    ),
    "too-large": Kind(
        413, "The body is larger than 1 MiB.", "Large data goes to an upload, and the Task names its key in `inputs`."
    ),
    "payload-too-large": Kind(
        413,
        "args and kwargs together are longer than 8 KiB as JSON.",
        "Store them as a file and name it in `inputs`.",
    ),
    "unsupported-media-type": Kind(
        415, "The body is declared as something else than JSON.", "Send `Content-Type: application/json`."
    ),
    "range-not-satisfiable": Kind(416, "The range lies behind the end of the log.", "`Content-Range` has its length."),
    "invalid": Kind(
        422,
        "The request does not fit its schema, or the API server refuses it.",
        "Each of `errors` has the place (`location` and a JSON Pointer) and what is expected there.",
    ),
    "idempotency-key-reused": Kind(
        422, "The Idempotency-Key was used for another body.", "Take a new key for each piece of work."
    ),
    "too-many-requests": Kind(429, "Too much was asked at once.", "Come again after `Retry-After`."),
    "quota-exceeded": Kind(
        429,
        "A rate limit has no units left for this request. Its `type` is the registered "
        "`https://iana.org/assignments/http-problem-types#quota-exceeded`; `violated-policies` names the limits.",
        "Come again after `Retry-After`; `RateLimit` of each answer says what is left.",
    ),
    "too-many-streams": Kind(429, "The caller has too many event streams and followed logs open.", "Close one."),
    "too-many-operations": Kind(429, "Too many operations run in the namespace.", "Wait for one to end, or delete it."),
    "internal": Kind(500, "A fault of the server; nothing about it is told.", "Its log has it under `requestId`."),
    "unavailable": Kind(
        503,
        "Kubernetes, PostgreSQL, Redis or the object store does not answer.",
        "Come again after `Retry-After`; `/readyz?verbose` says which.",
    ),
}
