"""Callers and their permissions from Kubernetes (TokenReview, SubjectAccessReview). RBAC is the only policy."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from taskflow_core.domain import naming
from taskflow_core.errors import Forbidden, Invalid, NotFound, Unavailable

TOKEN_SECONDS = 30.0
ACCESS_SECONDS = 10.0
CACHE_ENTRIES = 10_000
_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Reviewer(Protocol):
    """The part of `KubeClient` that reviews need."""

    async def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send one JSON request to the API server."""


class Method(StrEnum):
    """How a caller authenticated."""

    KUBERNETES = "kubernetes"
    OIDC = "oidc"
    API_KEY = "apikey"
    ACCOUNT = "account"


class Scope(StrEnum):
    """The most that an API key permits. RBAC decides within it."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Caller:
    """A Kubernetes identity and how it authenticated. Only the identity counts for equality."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    method: Method = field(default=Method.KUBERNETES, compare=False)
    subject: str = field(default="", compare=False)
    """The subject of an OIDC token, the id of an API key, or the name of an account."""
    scopes: frozenset[Scope] | None = field(default=None, compare=False)
    """None if only RBAC restricts the caller."""

    def holds(self, scope: Scope) -> bool:
        """Whether the credential includes the scope. RBAC decides within it."""
        return self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class Resource:
    """A Kubernetes resource that a permission names."""

    group: str
    plural: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else "/".join(filter(None, (self.plural, self.subresource)))


TASKS = Resource(naming.GROUP, "tasks")


class KubernetesAuth:
    """Authenticates and authorises callers through the API server.

    Positive answers are cached, 30 s for a token and 10 s for a permission, so a revoked one may work for that long.
    Negative answers are not cached, so a new token or role works at once.
    """

    def __init__(self, kube: Reviewer, audiences: Sequence[str], clock: Callable[[], float]) -> None:
        self._kube = kube
        self._audiences = list(audiences)
        self._callers = ExpiringCache[bytes, Caller](TOKEN_SECONDS, CACHE_ENTRIES, clock)
        self._allowed = ExpiringCache[tuple[Caller, Resource, str, str, str], bool](
            ACCESS_SECONDS, CACHE_ENTRIES, clock
        )

    async def authenticate(self, token: str) -> Caller | None:
        """The caller behind a Kubernetes token; None if the token is not valid.

        Raises:
            Unavailable: the API server does not answer, or does not allow this process to create reviews.
        """
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._callers.get(key)) is not None:
            return known
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        status = await self._review(_TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
        # An authenticator that ignores audiences returns none of them, so the token may be meant for another service.
        right_audience = not self._audiences or set(self._audiences) & set(status.get("audiences") or ())
        user = status.get("user") or {}
        if not status.get("authenticated") or not right_audience or not user.get("username"):
            return None
        extra = tuple(sorted((name, tuple(values)) for name, values in (user.get("extra") or {}).items()))
        caller = Caller(user["username"], user.get("uid", ""), tuple(user.get("groups") or ()), extra)
        self._callers.put(key, caller)
        return caller

    async def allows(
        self, caller: Caller, verb: str, namespace: str, name: str = "", *, resource: Resource = TASKS
    ) -> bool:
        """Whether RBAC allows the caller this verb on the resource in the namespace.

        Raises:
            Unavailable: as `authenticate`.
        """
        if self.allowed_recently(caller, verb, namespace, name, resource=resource):
            return True
        spec = {
            "user": caller.username,
            "uid": caller.uid,
            "groups": list(caller.groups),
            "extra": {name: list(values) for name, values in caller.extra},
            "resourceAttributes": {
                "group": resource.group,
                "resource": resource.plural,
                "subresource": resource.subresource,
                "verb": verb,
                "namespace": namespace,
                "name": name,
            },
        }
        status = await self._review(_ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
        allowed = bool(status.get("allowed")) and not status.get("denied")
        if allowed:
            self._allowed.put((caller, resource, verb, namespace, name), value=True)
        return allowed

    def allowed_recently(
        self, caller: Caller, verb: str, namespace: str, name: str = "", *, resource: Resource = TASKS
    ) -> bool:
        """Whether the cache holds a positive answer, without asking the API server."""
        return bool(self._allowed.get((caller, resource, verb, namespace, name)))

    async def _review(self, path: str, version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._kube.request("POST", path, {"apiVersion": version, "kind": kind, "spec": spec})
        except (Forbidden, Invalid, NotFound) as error:
            # This process lacks the right to create reviews, which is not the caller's fault.
            raise Unavailable(f"{kind} refused: {error}") from error
        status: dict[str, Any] = answer.get("status") or {}
        return status


class ExpiringCache(Generic[Key, Value]):
    """A cache of at most `entries` values, each kept for `seconds`. The oldest is evicted first."""

    def __init__(self, seconds: float, entries: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._entries = entries
        self._clock = clock
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value, or None if it is missing or expired."""
        until, value = self._values.get(key, (0.0, None))
        if value is not None and self._clock() < until:
            return value
        self.drop(key)
        return None

    def drop(self, key: Key) -> None:
        """Remove the value."""
        self._values.pop(key, None)

    def put(self, key: Key, value: Value) -> None:
        """Store the value; its time starts now."""
        self.drop(key)
        self._values[key] = (self._clock() + self._seconds, value)
        while len(self._values) > self._entries:
            self._values.popitem(last=False)
