from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.auth import Caller, Gate, Method
from taskflow_api.identity.accounts import ISSUER, Accounts
from taskflow_api.identity.accountstore import PostgresAccounts
from taskflow_api.identity.attempts import Forgiving
from taskflow_api.identity.jwks import Fetcher, KeySet
from taskflow_api.identity.keys import Keys
from taskflow_api.identity.keystore import PostgresKeys
from taskflow_api.identity.oidc import Oidc
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.serviceaccounts import ServiceAccounts
from taskflow_api.identity.tokens import Check, Tokens
from taskflow_api.settings import OidcSettings, RegisterSettings
from taskflow_core.kube.client import Requests


@dataclass(frozen=True, slots=True)
class Identity:
    """Who comes in, and what can be done about it."""

    tokens: Tokens
    keys: Keys
    accounts: Accounts | None = None
    """None: there is no registration."""

    async def stands(self, caller: Caller) -> bool:
        """Whether the API key or account still stands by which a caller came, for what goes on without his token.

        True of who came with a token of Kubernetes or OIDC: those are short-lived, and end no work that was begun with them.

        Raises:
            Unavailable: the API server or the database does not answer.
        """
        if caller.method is Method.API_KEY:
            return await self.keys.stands(caller.subject)
        if caller.method is Method.ACCOUNT:
            return self.accounts is not None and await self.accounts.stands(caller)
        return True


@asynccontextmanager
async def identity(
    kube: Requests,
    engine: AsyncEngine,
    gate: Gate,
    oidc: OidcSettings,
    register: RegisterSettings,
    counter: Forgiving | None,
) -> AsyncIterator[Identity]:
    """All ways in, on the real API server, database and issuer; closed at the end of the block. `counter` counts passwords tried.

    Raises:
        Invalid: the signing key of accounts, or the file of certificates, is not usable.
    """
    service_accounts = ServiceAccounts(kube, time.monotonic)
    keys = Keys(PostgresKeys(engine), service_accounts, time.monotonic, _now)
    issuers: dict[str, Check] = {}
    accounts = None
    if register.enabled:
        store, life = PostgresAccounts(engine), timedelta(seconds=register.token_seconds)
        accounts = Accounts(store, service_accounts, Passwords(), register.key(), life, time.monotonic, _now, counter)
        issuers[ISSUER] = accounts.caller
    async with AsyncExitStack() as stack:
        if oidc.issuer:
            fetcher = Fetcher(oidc.ca_file)
            stack.push_async_callback(fetcher.close)
            key_set = KeySet(oidc.issuer, fetcher, time.monotonic)
            stack.push_async_callback(key_set.close)
            issuers[oidc.issuer] = Oidc(oidc, key_set).caller
        noting = asyncio.create_task(keys.keep_noting())
        try:
            yield Identity(Tokens(gate.authenticate, keys.caller, issuers), keys, accounts)
        finally:
            noting.cancel()
            with suppress(asyncio.CancelledError):
                await noting


def _now() -> datetime:
    return datetime.now(UTC)
