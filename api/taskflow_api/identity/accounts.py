"""Accounts with a password, for places without an identity provider: register, then a token for some minutes.

An account of itself may do nothing, and gets no token: an administrator binds it to a ServiceAccount, with
`python -m taskflow_api accounts bind`. So that anybody can register gives nobody a right.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

import jwt

from taskflow_api.auth import CACHE_ENTRIES, Caller, ExpiringCache, Method
from taskflow_api.identity import signed
from taskflow_api.identity.accountstore import AccountRow, AccountStore
from taskflow_api.identity.attempts import Attempts, Forgiving
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.serviceaccounts import ServiceAccounts
from taskflow_core.errors import TaskflowError

ISSUER = "taskflow-accounts"
"""Of the tokens, and whom they are for; no URL, so that no OIDC issuer has the same name."""
ALGORITHM = "HS256"
ROW_SECONDS = 10.0
LOGINS, LOGIN_SECONDS = 5, 300
REGISTRATIONS, REGISTRATION_SECONDS = 20, 60
UNBOUND_FOR = timedelta(days=7)
"""So long an account waits for an administrator; then it may go, so that strangers cannot fill the table."""


class TooManyError(TaskflowError):
    """Too many attempts; come again later."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many attempts; try again in {seconds} s")
        self.seconds = seconds


class WrongPasswordError(TaskflowError):
    """No such account, or another password: which of them is told to nobody."""


class UnboundError(TaskflowError):
    """The right password of an account that stands for nothing."""


class Accounts:
    """What can be done with accounts.

    Args:
        store: Where they are kept.
        service_accounts: What they stand for.
        passwords: How passwords are kept.
        key: Signs the tokens.
        life: How long a token is good.
        clock: Monotonic seconds.
        now: The time that is written into tokens.
        shared: Counts attempts for all API processes; None: this one counts for itself.
    """

    def __init__(
        self,
        store: AccountStore,
        service_accounts: ServiceAccounts,
        passwords: Passwords,
        key: bytes,
        life: timedelta,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        shared: Forgiving | None = None,
    ) -> None:
        self._store = store
        self._service_accounts = service_accounts
        self._passwords = passwords
        self._key = key
        self.life = life
        self._now = now
        self._rows = ExpiringCache[str, AccountRow](ROW_SECONDS, CACHE_ENTRIES, clock)
        self._logins = Attempts("login", LOGINS, LOGIN_SECONDS, shared, clock)
        self._registrations = Attempts("registration", REGISTRATIONS, REGISTRATION_SECONDS, shared, clock)

    async def register(self, name: str, password: str) -> None:
        """A new account, bound to nothing.

        Raises:
            TooManyError: of all callers together, in the last minute.
            Conflict: there is one of that name.
            Unavailable: the database does not answer, or too much is being hashed.
        """
        if seconds := await self._registrations.take(""):
            raise TooManyError(seconds)
        now = self._now()
        row = AccountRow(secrets.token_hex(8), name, await self._passwords.hash(password), now)
        await self._store.add(row, forget_unbound_before=now - UNBOUND_FOR)

    async def token(self, name: str, password: str) -> str:
        """A token for the account, good for `life`.

        Raises:
            TooManyError: for this name, known or not, since the last right password.
            WrongPasswordError: no such account, or another password.
            UnboundError: the account stands for nothing.
            Unavailable: as `register`.
        """
        if seconds := await self._logins.take(name):
            raise TooManyError(seconds)
        row = await self._store.by_name(name)
        stored = None if row is None else row.password_hash
        if not await self._passwords.verify(stored, password) or row is None:
            raise WrongPasswordError("no such account, or another password")
        await self._logins.forget(name)
        if row.binding is None or not await self._service_accounts.exists(row.binding):
            raise UnboundError(f"account {name} stands for no ServiceAccount; an administrator binds it to one")
        now = self._now()
        claims = {"iss": ISSUER, "aud": ISSUER, "sub": row.id, "iat": now, "exp": now + self.life}
        return jwt.encode(claims, self._key, ALGORITHM)

    async def stands(self, caller: Caller) -> bool:
        """Whether the account by which a caller came is still there and stands for the same.

        Raises:
            Unavailable: as `caller`.
        """
        row = await self._store.by_name(caller.subject)
        if row is None or row.binding is None or row.binding.caller(Method.ACCOUNT, row.name) != caller:
            return False
        return await self._service_accounts.exists(row.binding)

    async def caller(self, token: str) -> Caller | None:
        """The identity that a token of ours proves; None when its account is gone or stands for nothing any more.

        Raises:
            RefusedError: it is none of ours, or expired.
            Unavailable: the API server or the database does not answer.
        """
        claims = signed.claims(
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
