"""Accounts with a password, for installations without an identity provider, and their short-lived tokens.

A new account has no permissions and gets no tokens until an administrator binds it to a ServiceAccount with
`python -m taskflow_api accounts bind`. So open registration grants no permissions.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

import jwt

from taskflow_api.gcra.counters import ResettableCounter
from taskflow_api.http.kubernetes_auth import CACHE_ENTRIES, Caller, ExpiringCache, Method
from taskflow_api.identity import jwt_validation
from taskflow_api.identity.account_store import AccountRow, AccountStore
from taskflow_api.identity.attempt_limits import AttemptLimit
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.service_accounts import ServiceAccounts
from taskflow_core.errors import Conflict, TaskflowError

ISSUER = "taskflow-accounts"
"""Issuer and audience of the tokens. It is not a URL, so no OIDC issuer can have the same name."""
ALGORITHM = "HS256"
ROW_SECONDS = 10.0
LOGINS, LOGIN_SECONDS = 5, 300
"""Of one account from one address. Not of the account alone: a stranger could lock its owner out."""
SOURCE_LOGINS, SOURCE_SECONDS = 60, 60
"""Of all accounts from one address: each costs a slow hash, and one password may be tried on many names."""
ACCOUNT_LOGINS, ACCOUNT_SECONDS = 20, 300
"""Of one account from all addresses. More make answers to wrong passwords slow, and never refuse the right one."""
SLOW_SECONDS = 2.0
REGISTRATIONS, REGISTRATION_SECONDS = 20, 60
"""From one address."""
ALL_REGISTRATIONS = 300
"""From all addresses together, in the same time."""
UNBOUND_LIFETIME = timedelta(days=7)
"""Unbound accounts may be deleted after this time, so that open registration cannot fill the table."""


class TooManyError(TaskflowError):
    """Too many attempts in a short time."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many attempts; try again in {seconds} s")
        self.seconds = seconds


class WrongPasswordError(TaskflowError):
    """The account does not exist, is not bound, or the password is wrong. The error does not say which, because whoever
    registers a name would learn from it whether it was taken.
    """

    def __init__(self) -> None:
        super().__init__("the account does not exist, no administrator has bound it yet, or the password is wrong")


class Accounts:
    """Registers accounts, issues tokens and validates them.

    Args:
        store: The store of accounts.
        service_accounts: The ServiceAccounts that accounts are bound to.
        passwords: Hashes and verifies passwords.
        key: Signs the tokens.
        lifetime: Lifetime of a token.
        clock: Monotonic seconds.
        now: The time for tokens.
        shared: Counts attempts for all API processes; None if this process counts alone.
        sleep: Replaced in tests.
    """

    def __init__(
        self,
        store: AccountStore,
        service_accounts: ServiceAccounts,
        passwords: Passwords,
        key: bytes,
        lifetime: timedelta,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        shared: ResettableCounter | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._service_accounts = service_accounts
        self._passwords = passwords
        self._key = key
        self.lifetime = lifetime
        self._now = now
        self._rows = ExpiringCache[str, AccountRow](ROW_SECONDS, CACHE_ENTRIES, clock)
        self._logins = AttemptLimit("login", LOGINS, LOGIN_SECONDS, shared, clock)
        self._source_logins = AttemptLimit("login-source", SOURCE_LOGINS, SOURCE_SECONDS, shared, clock)
        self._account_logins = AttemptLimit("login-account", ACCOUNT_LOGINS, ACCOUNT_SECONDS, shared, clock)
        self._registrations = AttemptLimit("registration", REGISTRATIONS, REGISTRATION_SECONDS, shared, clock)
        self._all_registrations = AttemptLimit("registrations", ALL_REGISTRATIONS, REGISTRATION_SECONDS, shared, clock)
        self._sleep = sleep

    async def register(self, name: str, password: str, source: str) -> str:
        """Create an unbound account; returns its id, by which an administrator binds it.

        If the name is taken, nothing is created and the id is of no account: the answer, after the same work, is the
        same, so nobody learns which names exist. Whoever registered a name first can be bound only by an id that
        nobody else was told.

        Raises:
            TooManyError: too many registrations from this address, or from all, in the last minute.
            Unavailable: the database does not answer, or too many passwords are being hashed.
        """
        for limit, name_of in ((self._registrations, source), (self._all_registrations, "")):
            if seconds := await limit.consume(name_of):
                raise TooManyError(seconds)
        now = self._now()
        row = AccountRow(secrets.token_hex(8), name, await self._passwords.hash(password), now)
        with suppress(Conflict):
            await self._store.add(row, delete_unbound_before=now - UNBOUND_LIFETIME)
        return row.id

    async def token(self, name: str, password: str, source: str) -> str:
        """A token for the account, valid for `lifetime`.

        Raises:
            TooManyError: too many attempts from this address, for this name, whether it exists or not, since the last
                right password, or for any name.
            WrongPasswordError: the account does not exist, is not bound, or the password is wrong.
            Unavailable: as in `register`.
        """
        if seconds := await self._source_logins.consume(source) or await self._logins.consume(f"{name}@{source}"):
            raise TooManyError(seconds)
        guessed_elsewhere = await self._account_logins.consume(name)
        row = await self._store.by_name(name)
        stored = None if row is None else row.password_hash
        right = await self._passwords.verify(stored, password)
        if not right or row is None or row.binding is None or not await self._service_accounts.exists(row.binding):
            if guessed_elsewhere:
                await self._sleep(SLOW_SECONDS)
            raise WrongPasswordError
        await self._logins.reset(f"{name}@{source}")
        now = self._now()
        claims = {"iss": ISSUER, "aud": ISSUER, "sub": row.id, "iat": now, "exp": now + self.lifetime}
        return jwt.encode(claims, self._key, ALGORITHM)

    async def is_valid(self, caller: Caller) -> bool:
        """Whether the account of a caller still exists and is bound to the same ServiceAccount.

        Raises:
            Unavailable: as in `caller`.
        """
        row = await self._store.by_name(caller.subject)
        if row is None or row.binding is None or row.binding.caller(Method.ACCOUNT, row.name) != caller:
            return False
        return await self._service_accounts.exists(row.binding)

    async def caller(self, token: str) -> Caller | None:
        """The caller behind a token; None if its account was deleted or is no longer bound.

        Raises:
            InvalidTokenError: the token was not issued here, or it has expired.
            Unavailable: the API server or the database does not answer.
        """
        claims = jwt_validation.claims(
            token, self._key, algorithms=[ALGORITHM], audience=ISSUER, issuer=ISSUER, require=["sub"]
        )
        row = self._rows.get(claims["sub"])
        if row is None:
            row = await self._store.by_id(claims["sub"])
            if row is not None:
                self._rows.put(row.id, row)
        if row is None or row.binding is None or not await self._service_accounts.exists(row.binding):
            return None
        return row.binding.caller(Method.ACCOUNT, row.name)
