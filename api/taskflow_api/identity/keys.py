"""API keys: made for a ServiceAccount, rotated, revoked, and taken for what they stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from taskflow_api.auth import CACHE_ENTRIES, Caller, ExpiringCache, Method, Scope
from taskflow_api.identity.keystore import KeyRow, KeyStore
from taskflow_api.identity.keytext import KeyText
from taskflow_api.identity.serviceaccounts import Binding, ServiceAccounts
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.telemetry.logs import get_logger

ROW_SECONDS = 10.0
NOTE_SECONDS = 60.0
KEPT_AFTER_EXPIRY = timedelta(days=30)
DEFAULT_LIFE = timedelta(days=90)
MIN_LIFE, MAX_LIFE = timedelta(minutes=10), timedelta(days=366)
DEFAULT_GRACE, MAX_GRACE = timedelta(days=1), timedelta(days=30)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The key that somebody asks for."""

    namespace: str
    service_account: str
    name: str
    scopes: tuple[Scope, ...]
    life: timedelta


class Keys:
    """What can be done with keys. Whether the caller may is asked before.

    A key is believed for 10 s after it was read, so one that another process revoked may work that long. `last_used_at` is
    written once a minute by `note_uses`, never by the request that uses the key.
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

    async def create(self, wanted: Wanted, created_by: str) -> tuple[KeyRow, KeyText]:
        """A new key; its text is known to nobody afterwards.

        Raises:
            NotFound: there is no such ServiceAccount.
            Conflict: the namespace has too many keys.
            Unavailable: the API server or the database does not answer.
        """
        binding = await self._service_accounts.find(wanted.namespace, wanted.service_account)
        if binding is None:
            raise NotFound(f"there is no ServiceAccount {wanted.service_account} in namespace {wanted.namespace}")
        text, now = KeyText.new(), self._now()
        row = KeyRow(
            text.id,
            binding.namespace,
            binding.name,
            binding.uid,
            wanted.name,
            sorted({scope.value for scope in wanted.scopes}),
            text.digest,
            now,
            created_by,
            now + wanted.life,
        )
        await self._store.add(row, forget_expired_before=now - KEPT_AFTER_EXPIRY)
        return row, text

    async def rotate(self, old: KeyRow, grace: timedelta, created_by: str) -> tuple[KeyRow, KeyText]:
        """Another key in its place, with the same scopes and as long a life; the old one ends after the grace period.

        Raises:
            Conflict: it has been rotated already, or is gone.
            Unavailable: the database does not answer.
        """
        text, now = KeyText.new(), self._now()
        # What rotation left of the old one's life is no measure: only a key that was never rotated gets here.
        life = old.expires_at - old.created_at
        new = replace(
            old,
            id=text.id,
            digest=text.digest,
            created_at=now,
            created_by=created_by,
            expires_at=now + life,
            last_used_at=None,
            replaced_by=None,
        )
        await self._store.rotate(old.id, new, old_expires_at=now + grace)
        self._rows.drop(old.id)
        return new, text

    async def revoke(self, key_id: str) -> bool:
        """Delete it; whether there was one. Raises Unavailable."""
        gone = await self._store.delete(key_id)
        self._rows.drop(key_id)
        return gone

    async def get(self, key_id: str) -> KeyRow | None:
        """One key. Raises Unavailable."""
        return await self._store.get(key_id)

    async def of_namespace(self, namespace: str, service_account: str | None = None) -> list[KeyRow]:
        """Keys of a namespace, expired ones of the last 30 days included, oldest first. Raises Unavailable."""
        return await self._store.of_namespace(namespace, service_account)

    async def caller(self, token: str) -> Caller | None:
        """The identity that a key proves; None when it proves none.

        Raises:
            Unavailable: the API server or the database does not answer.
        """
        text = KeyText.parse(token)
        row = await self._row(text.id) if text is not None else None
        if text is None or row is None or not text.fits(row.digest):
            return None
        if not await self._good(row):
            return None
        self._used[row.id] = self._now()
        return _binding(row).caller(Method.API_KEY, row.id, frozenset(map(Scope, row.scopes)))

    async def stands(self, key_id: str) -> bool:
        """Whether a key still proves something.

        Raises:
            Unavailable: as `caller`.
        """
        row = await self._row(key_id)
        return row is not None and await self._good(row)

    async def _row(self, key_id: str) -> KeyRow | None:
        row = self._rows.get(key_id)
        if row is None:
            row = await self._store.get(key_id)
            if row is not None:
                self._rows.put(key_id, row)
        return row

    async def _good(self, row: KeyRow) -> bool:
        return row.expires_at > self._now() and await self._service_accounts.exists(_binding(row))

    async def note_uses(self) -> None:
        """Write down which keys were used since the last time; what cannot be written is tried again the next time."""
        used, self._used = self._used, {}
        try:
            await self._store.note_use(used)
        except TaskflowError as error:
            self._used = used | self._used
            _log.warning("key_use_not_noted", keys=len(used), cause=str(error))

    async def keep_noting(self) -> None:
        """`note_uses` once a minute, until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(NOTE_SECONDS)
                await self.note_uses()
        finally:
            await self.note_uses()


def _binding(row: KeyRow) -> Binding:
    return Binding(row.namespace, row.service_account, row.service_account_uid)
