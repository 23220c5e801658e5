"""Who calls, and may they: Kubernetes answers both (TokenReview, SubjectAccessReview), so RBAC is the one policy."""

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
    """What is needed of a `KubeClient`."""

    async def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One JSON request to the API server."""


class Method(StrEnum):
    """The way in by which a caller came."""

    KUBERNETES = "kubernetes"
    OIDC = "oidc"
    API_KEY = "apikey"
    ACCOUNT = "account"


class Scope(StrEnum):
    """What an API key is good for, at most; RBAC decides within it."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Caller:
    """A Kubernetes identity, and how it proved itself: the latter makes it no other identity."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    method: Method = field(default=Method.KUBERNETES, compare=False)
    subject: str = field(default="", compare=False)
    """Who is behind the identity: the subject of an OIDC token, the id of an API key, the name of an account."""
    scopes: frozenset[Scope] | None = field(default=None, compare=False)
    """None: whatever RBAC allows."""

    def holds(self, scope: Scope) -> bool:
        """Whether what it came with is good for that much; RBAC decides within it."""
        return self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class Resource:
    """What a permission is about."""

    group: str
    plural: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else "/".join(filter(None, (self.plural, self.subresource)))


TASKS = Resource(naming.GROUP, "tasks")


class Gate:
    """Asks the API server, and remembers its consent: 30 s for a token, 10 s for a permission. Refusals are asked anew.

    So a revoked token or role may work for that long, and a granted one works at once.
    """

    def __init__(self, kube: Reviewer, audiences: Sequence[str], clock: Callable[[], float]) -> None:
        self._kube = kube
        self._audiences = list(audiences)
        self._callers = ExpiringCache[bytes, Caller](TOKEN_SECONDS, CACHE_ENTRIES, clock)
        self._allowed = ExpiringCache[tuple[Caller, Resource, str, str, str], bool](
            ACCESS_SECONDS, CACHE_ENTRIES, clock
        )

    async def authenticate(self, token: str) -> Caller | None:
        """The identity that a token of Kubernetes proves; None when it proves none.

        Raises:
            Unavailable: the API server does not answer, or does not let this process ask.
        """
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._callers.get(key)) is not None:
            return known
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        status = await self._review(_TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
        # An authenticator that ignores audiences answers with none of them: the token is then not meant for us.
        meant_for_us = not self._audiences or set(self._audiences) & set(status.get("audiences") or ())
        user = status.get("user") or {}
        if not status.get("authenticated") or not meant_for_us or not user.get("username"):
            return None
        extra = tuple(sorted((name, tuple(values)) for name, values in (user.get("extra") or {}).items()))
        caller = Caller(user["username"], user.get("uid", ""), tuple(user.get("groups") or ()), extra)
        self._callers.put(key, caller)
        return caller

    async def allows(
        self, caller: Caller, verb: str, namespace: str, name: str = "", *, resource: Resource = TASKS
    ) -> bool:
        """Whether the caller may do this with the resource in the namespace.

        Raises:
            Unavailable: as `authenticate`.
        """
        if self.remembers(caller, verb, namespace, name, resource=resource):
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

    def remembers(
        self, caller: Caller, verb: str, namespace: str, name: str = "", *, resource: Resource = TASKS
    ) -> bool:
        """Whether the API server consented to this a moment ago."""
        return bool(self._allowed.get((caller, resource, verb, namespace, name)))

    async def _review(self, path: str, version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._kube.request("POST", path, {"apiVersion": version, "kind": kind, "spec": spec})
        except (Forbidden, Invalid, NotFound) as error:
            # The caller is not to blame for what this process may not ask.
            raise Unavailable(f"{kind} refused: {error}") from error
        status: dict[str, Any] = answer.get("status") or {}
        return status


class ExpiringCache(Generic[Key, Value]):
    """At most `entries` values, each for `seconds`; the oldest goes first."""

    def __init__(self, seconds: float, entries: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._entries = entries
        self._clock = clock
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value, unless it has expired."""
        until, value = self._values.get(key, (0.0, None))
        if value is not None and self._clock() < until:
            return value
        self.drop(key)
        return None

    def drop(self, key: Key) -> None:
        """Forget the value."""
        self._values.pop(key, None)

    def put(self, key: Key, value: Value) -> None:
        """Remember the value from now on."""
        self.drop(key)
        self._values[key] = (self._clock() + self._seconds, value)
        while len(self._values) > self._entries:
            self._values.popitem(last=False)
