"""The ServiceAccounts that keys and accounts stand for. With the ServiceAccount they end: its uid is that of the binding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taskflow_api.auth import CACHE_ENTRIES, Caller, ExpiringCache, Method, Resource, Scope
from taskflow_core.errors import Forbidden, NotFound, Unavailable
from taskflow_core.kube.client import Requests, resource_path

EXISTS_SECONDS = 10.0
TOKENS = Resource("", "serviceaccounts", "token")
"""Whoever may `create` it can be the ServiceAccount, so it is the right to make a key for it as well."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One ServiceAccount, and not another of that name after it."""

    namespace: str
    name: str
    uid: str

    def caller(self, method: Method, subject: str, scopes: frozenset[Scope] | None = None) -> Caller:
        """The identity, as TokenReview would tell it of a token of this ServiceAccount.

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
    """Asks the API server; that one exists is believed for 10 s, that one does not is asked anew."""

    def __init__(self, kube: Requests, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._uids = ExpiringCache[tuple[str, str], str](EXISTS_SECONDS, CACHE_ENTRIES, clock)

    async def find(self, namespace: str, name: str) -> Binding | None:
        """The ServiceAccount as it is now; None when there is none, or it is being deleted.

        Raises:
            Unavailable: the API server does not answer, or does not let this process ask.
        """
        try:
            found = await self._kube.request("GET", resource_path("api/v1", "serviceaccounts", namespace, name))
        except NotFound:
            return None
        except Forbidden as error:
            # The caller is not to blame for what this process may not ask.
            raise Unavailable(f"ServiceAccount refused: {error}") from error
        if found["metadata"].get("deletionTimestamp"):
            return None
        return Binding(namespace, name, found["metadata"]["uid"])

    async def exists(self, binding: Binding) -> bool:
        """Whether it is still there.

        Raises:
            Unavailable: as `find`.
        """
        key = (binding.namespace, binding.name)
        if self._uids.get(key) == binding.uid:
            return True
        if await self.find(*key) != binding:
            return False
        self._uids.put(key, binding.uid)
        return True
