"""API keys of ServiceAccounts: creation, rotation, revocation and validation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from taskflow_api.http.kubernetes_auth import CACHE_ENTRIES, Caller, ExpiringCache, Method, Scope
from taskflow_api.identity.key_format import ApiKey
from taskflow_api.identity.key_store import KeyRow, KeyStore
from taskflow_api.identity.service_accounts import Binding, ServiceAccounts
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger

ROW_SECONDS = 10.0
USE_SECONDS = 60.0
KEPT_AFTER_EXPIRY = timedelta(days=30)
DEFAULT_LIFETIME = timedelta(days=90)
MIN_LIFETIME, MAX_LIFETIME = timedelta(minutes=10), timedelta(days=366)
DEFAULT_GRACE, MAX_GRACE = timedelta(days=1), timedelta(days=30)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewKey:
    """The properties of a key to create."""

    namespace: str
    service_account: str
    name: str
    scopes: tuple[Scope, ...]
    lifetime: timedelta


class Keys:
    """Manages and validates keys. It does not check whether the caller may manage them.

    Keys are cached for 10 s, so a key that another process revoked may work that long. `record_uses` writes
    `last_used_at` once a minute, outside of requests.
    """

    def __init__(
        self,
        store: KeyStore,
        service_accounts: ServiceAccounts,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._service_accounts = service_accounts
        self._now = now
        self._rows = ExpiringCache[str, KeyRow](ROW_SECONDS, CACHE_ENTRIES, clock)
        self._used: dict[str, datetime] = {}

    async def create(self, new: NewKey, created_by: str) -> tuple[KeyRow, ApiKey]:
        """Create a key. Its secret is not stored and cannot be read again.

        Raises:
            NotFound: the ServiceAccount does not exist.
            Conflict: the namespace has too many keys.
            Unavailable: the API server or the database does not answer.
        """
        binding = await self._service_accounts.find(new.namespace, new.service_account)
        if binding is None:
            raise NotFound(f"ServiceAccount {new.service_account} does not exist in namespace {new.namespace}")
        text, now = ApiKey.new(), self._now()
        row = KeyRow(
            text.id,
            binding.namespace,
            binding.name,
            binding.uid,
            new.name,
            sorted({scope.value for scope in new.scopes}),
            text.digest,
            now,
            created_by,
            now + new.lifetime,
        )
        await self._store.add(row, delete_expired_before=now - KEPT_AFTER_EXPIRY)
        return row, text

    async def rotate(self, old: KeyRow, grace: timedelta, created_by: str) -> tuple[KeyRow, ApiKey]:
        """Create a key with the same scopes and lifetime. The old one expires after the grace period.

        Raises:
            Conflict: the key was already rotated or deleted.
            Unavailable: the database does not answer.
        """
        text, now = ApiKey.new(), self._now()
        # The old key was never rotated, so this is its original lifetime and not one shortened by a grace period.
        lifetime = old.expires_at - old.created_at
        new = replace(
            old,
            id=text.id,
            digest=text.digest,
            created_at=now,
            created_by=created_by,
            expires_at=now + lifetime,
            last_used_at=None,
            replaced_by=None,
        )
        await self._store.rotate(old.id, new, old_expires_at=now + grace)
        self._rows.drop(old.id)
        return new, text

    async def revoke(self, key_id: str) -> bool:
        """Delete a key; whether it existed. Raises Unavailable."""
        gone = await self._store.delete(key_id)
        self._rows.drop(key_id)
        return gone

    async def get(self, key_id: str) -> KeyRow | None:
        """A key by id. Raises Unavailable."""
        return await self._store.get(key_id)

    async def of_namespace(self, namespace: str, service_account: str | None = None) -> list[KeyRow]:
        """The keys of a namespace, oldest first, including those expired in the last 30 days. Raises Unavailable."""
        return await self._store.of_namespace(namespace, service_account)

    async def caller(self, token: str) -> Caller | None:
        """The caller behind a key; None if the key is not valid.

        Raises:
            Unavailable: the API server or the database does not answer.
        """
        text = ApiKey.parse(token)
        row = await self._row(text.id) if text is not None else None
        if text is None or row is None or not text.matches(row.digest):
            return None
        if not await self._row_valid(row):
            return None
        self._used[row.id] = self._now()
        return _binding(row).caller(Method.API_KEY, row.id, frozenset(map(Scope, row.scopes)))

    async def is_valid(self, key_id: str) -> bool:
        """Whether a key is still valid.

        Raises:
            Unavailable: as in `caller`.
        """
        row = await self._row(key_id)
        return row is not None and await self._row_valid(row)

    async def _row(self, key_id: str) -> KeyRow | None:
        row = self._rows.get(key_id)
        if row is None:
            row = await self._store.get(key_id)
            if row is not None:
                self._rows.put(key_id, row)
        return row

    async def _row_valid(self, row: KeyRow) -> bool:
        return row.expires_at > self._now() and await self._service_accounts.exists(_binding(row))

    async def record_uses(self) -> None:
        """Store which keys were used since the last call. After a failure, the next call tries again."""
        used, self._used = self._used, {}
        try:
            await self._store.record_use(used)
        except TaskflowError as error:
            self._used = used | self._used
            _log.warning("key_use_not_recorded", keys=len(used), cause=str(error))

    async def run(self) -> None:
        """Call `record_uses` once a minute until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(USE_SECONDS)
                await self.record_uses()
        finally:
            await self.record_uses()


def _binding(row: KeyRow) -> Binding:
    return Binding(row.namespace, row.service_account, row.service_account_uid)
