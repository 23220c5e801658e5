"""In-memory stores of API keys and accounts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from argon2 import PasswordHasher

from taskflow_api.identity.account_store import AccountRow
from taskflow_api.identity.accounts import Accounts
from taskflow_api.identity.key_store import KeyRow
from taskflow_api.identity.keys import Keys
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.service_accounts import Binding, ServiceAccounts
from taskflow_core.errors import Conflict
from taskflow_core.kube.client import Requests

NOW = datetime(2026, 9, 20, 12, tzinfo=UTC)
SIGNING_KEY = b"k" * 32


class Time:
    """A manual clock, as seconds and as a date."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def date(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)


class MemoryKeys:
    def __init__(self) -> None:
        self.rows: dict[str, KeyRow] = {}
        self.reads = 0
        self.failure: Exception | None = None
        self.limit = 500

    async def add(self, row: KeyRow, *, delete_expired_before: datetime) -> None:
        self.rows = {key: kept for key, kept in self.rows.items() if kept.expires_at >= delete_expired_before}
        if len(self.rows) >= self.limit:
            raise Conflict("too many")
        self.rows[row.id] = row

    async def get(self, key_id: str) -> KeyRow | None:
        self.reads += 1
        if self.failure:
            raise self.failure
        return self.rows.get(key_id)

    async def of_namespace(self, namespace: str, service_account: str | None = None) -> list[KeyRow]:
        found = [row for row in self.rows.values() if row.namespace == namespace]
        return [row for row in found if service_account in (None, row.service_account)]

    async def rotate(self, old_id: str, new: KeyRow, *, old_expires_at: datetime) -> None:
        old = self.rows.get(old_id)
        if old is None or old.replaced_by is not None:
            raise Conflict("rotated")
        self.rows[old_id] = replace(old, replaced_by=new.id, expires_at=min(old.expires_at, old_expires_at))
        self.rows[new.id] = new

    async def delete(self, key_id: str) -> bool:
        return self.rows.pop(key_id, None) is not None

    async def record_use(self, used: Mapping[str, datetime]) -> None:
        if self.failure:
            raise self.failure
        for key, at in used.items():
            self.rows[key] = replace(self.rows[key], last_used_at=at)


class MemoryAccounts:
    def __init__(self) -> None:
        self.rows: dict[str, AccountRow] = {}

    async def add(self, row: AccountRow, *, delete_unbound_before: datetime) -> None:
        if row.name in self.rows:
            raise Conflict("there")
        self.rows[row.name] = row

    async def by_name(self, name: str) -> AccountRow | None:
        return self.rows.get(name)

    async def by_id(self, account_id: str) -> AccountRow | None:
        return next((row for row in self.rows.values() if row.id == account_id), None)

    async def all(self) -> list[AccountRow]:
        return list(self.rows.values())

    async def bind(self, name: str, binding: Binding | None, account_id: str = "") -> bool:
        if name not in self.rows or account_id not in ("", self.rows[name].id):
            return False
        self.rows[name] = replace(self.rows[name], binding=binding)
        return True

    async def delete(self, name: str) -> bool:
        return self.rows.pop(name, None) is not None


def fast_passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def keys(kube: Requests, store: MemoryKeys, time: Time) -> Keys:
    return Keys(store, ServiceAccounts(kube, time), time, time.date)


def accounts(kube: Requests, store: MemoryAccounts, time: Time, life: timedelta = timedelta(minutes=15)) -> Accounts:
    # PyJWT uses the system clock, so tokens are issued with it.
    async def sleep(seconds: float) -> None:
        time.slept.append(seconds)

    return Accounts(
        store,
        ServiceAccounts(kube, time),
        fast_passwords(),
        SIGNING_KEY,
        life,
        time,
        lambda: datetime.now(UTC),
        sleep=sleep,
    )
