"""The ServiceAccounts that API keys and accounts are bound to. A binding ends when its ServiceAccount is deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taskflow_api.http.kubernetes_auth import CACHE_ENTRIES, Caller, ExpiringCache, Method, Resource, Scope
from taskflow_core.errors import Forbidden, NotFound, Unavailable
from taskflow_core.kube.client import Requests, resource_path

EXISTS_SECONDS = 10.0
TOKENS = Resource("", "serviceaccounts", "token")
"""The permission to `create` it allows acting as the ServiceAccount, so it is also needed to manage its API keys."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A ServiceAccount with its uid, so that a later one of the same name does not match."""

    namespace: str
    name: str
    uid: str

    def caller(self, method: Method, subject: str, scopes: frozenset[Scope] | None = None) -> Caller:
        """The caller, with the identity that TokenReview returns for a token of this ServiceAccount.

        https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
        """
        return Caller(
            f"system:serviceaccount:{self.namespace}:{self.name}",
            self.uid,
            ("system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"),
            method=method,
            subject=subject,
            scopes=scopes,
        )


class ServiceAccounts:
    """Looks up ServiceAccounts. That one exists is cached for 10 s; that one does not exist is not cached."""

    def __init__(self, kube: Requests, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._uids = ExpiringCache[tuple[str, str], str](EXISTS_SECONDS, CACHE_ENTRIES, clock)

    async def find(self, namespace: str, name: str) -> Binding | None:
        """The current ServiceAccount; None if it does not exist or is being deleted.

        Raises:
            Unavailable: the API server does not answer, or does not allow this process to read ServiceAccounts.
        """
        try:
            found = await self._kube.request("GET", resource_path("api/v1", "serviceaccounts", namespace, name))
        except NotFound:
            return None
        except Forbidden as error:
            # This process lacks the permission to read ServiceAccounts, which is not the caller's fault.
            raise Unavailable(f"ServiceAccount refused: {error}") from error
        if found["metadata"].get("deletionTimestamp"):
            return None
        return Binding(namespace, name, found["metadata"]["uid"])

    async def exists(self, binding: Binding) -> bool:
        """Whether the ServiceAccount still exists.

        Raises:
            Unavailable: as in `find`.
        """
        key = (binding.namespace, binding.name)
        if self._uids.get(key) == binding.uid:
            return True
        if await self.find(*key) != binding:
            return False
        self._uids.put(key, binding.uid)
        return True
