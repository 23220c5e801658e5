"""Accounts with a password, for installations without an identity provider, and their short-lived tokens.

A new account has no permissions and gets no tokens until an administrator binds it to a ServiceAccount with
`python -m taskflow_api accounts bind`. So open registration grants no permissions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

import jwt

from taskflow_api.gcra.counters import ResettableCounter
from taskflow_api.http.kubernetes_auth import CACHE_ENTRIES, Caller, ExpiringCache, Method
from taskflow_api.identity import jwt_validation
from taskflow_api.identity.account_store import AccountRow, AccountStore
from taskflow_api.identity.attempt_limits import AttemptLimit
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.service_accounts import ServiceAccounts
from taskflow_core.errors import TaskflowError

ISSUER = "taskflow-accounts"
"""Issuer and audience of the tokens. It is not a URL, so no OIDC issuer can have the same name."""
ALGORITHM = "HS256"
ROW_SECONDS = 10.0
LOGINS, LOGIN_SECONDS = 5, 300
REGISTRATIONS, REGISTRATION_SECONDS = 20, 60
UNBOUND_LIFETIME = timedelta(days=7)
"""Unbound accounts may be deleted after this time, so that open registration cannot fill the table."""


class TooManyError(TaskflowError):
    """Too many attempts in a short time."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many attempts; try again in {seconds} s")
        self.seconds = seconds


class WrongPasswordError(TaskflowError):
    """The account does not exist or the password is wrong. The error does not say which."""


class UnboundError(TaskflowError):
    """The password is right, but the account is not bound to a ServiceAccount."""


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
    ) -> None:
        self._store = store
        self._service_accounts = service_accounts
        self._passwords = passwords
        self._key = key
        self.lifetime = lifetime
        self._now = now
        self._rows = ExpiringCache[str, AccountRow](ROW_SECONDS, CACHE_ENTRIES, clock)
        self._logins = AttemptLimit("login", LOGINS, LOGIN_SECONDS, shared, clock)
        self._registrations = AttemptLimit("registration", REGISTRATIONS, REGISTRATION_SECONDS, shared, clock)

    async def register(self, name: str, password: str) -> None:
        """Create an unbound account.

        Raises:
            TooManyError: all callers together have registered too many accounts in the last minute.
            Conflict: the name is taken.
            Unavailable: the database does not answer, or too many passwords are being hashed.
        """
        if seconds := await self._registrations.consume(""):
            raise TooManyError(seconds)
        now = self._now()
        row = AccountRow(secrets.token_hex(8), name, await self._passwords.hash(password), now)
        await self._store.add(row, delete_unbound_before=now - UNBOUND_LIFETIME)

    async def token(self, name: str, password: str) -> str:
        """A token for the account, valid for `lifetime`.

        Raises:
            TooManyError: too many attempts for this name, whether it exists or not, since the last right password.
            WrongPasswordError: the account does not exist or the password is wrong.
            UnboundError: the account is not bound to a ServiceAccount.
            Unavailable: as in `register`.
        """
        if seconds := await self._logins.consume(name):
            raise TooManyError(seconds)
        row = await self._store.by_name(name)
        stored = None if row is None else row.password_hash
        if not await self._passwords.verify(stored, password) or row is None:
            raise WrongPasswordError("the account does not exist or the password is wrong")
        await self._logins.reset(name)
        if row.binding is None or not await self._service_accounts.exists(row.binding):
            raise UnboundError(f"account {name} is not bound to a ServiceAccount; an administrator must bind it")
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
