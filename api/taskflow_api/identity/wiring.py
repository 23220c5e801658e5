"""Builds the authenticators of the API from its settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.gcra.counters import ResettableCounter
from taskflow_api.http.kubernetes_auth import Caller, KubernetesAuth, Method
from taskflow_api.identity.account_store import PostgresAccounts
from taskflow_api.identity.accounts import ISSUER, Accounts
from taskflow_api.identity.jwks import Fetcher, KeySet
from taskflow_api.identity.key_store import PostgresKeys
from taskflow_api.identity.keys import Keys
from taskflow_api.identity.oidc import Oidc
from taskflow_api.identity.passwords import Passwords
from taskflow_api.identity.service_accounts import ServiceAccounts
from taskflow_api.identity.tokens import Authenticator, Tokens
from taskflow_api.settings import OidcSettings, RegisterSettings
from taskflow_core.kube.client import Requests


@dataclass(frozen=True, slots=True)
class Identity:
    """Authentication, and the management of API keys and accounts."""

    tokens: Tokens
    keys: Keys
    accounts: Accounts | None = None
    """None if registration is off."""

    async def is_valid(self, caller: Caller) -> bool:
        """Whether the API key or account of a caller is still valid, for work that continues without its token.

        Always true for tokens of Kubernetes or OIDC: they are short-lived, and their expiry must not stop started work.

        Raises:
            Unavailable: the API server or the database does not answer.
        """
        if caller.method is Method.API_KEY:
            return await self.keys.is_valid(caller.subject)
        if caller.method is Method.ACCOUNT:
            return self.accounts is not None and await self.accounts.is_valid(caller)
        return True


@asynccontextmanager
async def identity(
    kube: Requests,
    engine: AsyncEngine,
    auth: KubernetesAuth,
    oidc: OidcSettings,
    register: RegisterSettings,
    counter: ResettableCounter | None,
) -> AsyncIterator[Identity]:
    """All authenticators on the real API server, database and issuer; closed at the end of the block.

    Args:
        kube: The API server.
        engine: The database.
        auth: Authenticates Kubernetes tokens.
        oidc: Settings of the OIDC issuer.
        register: Settings of accounts.
        counter: Counts password attempts; None if this process counts alone.

    Raises:
        Invalid: the signing key of accounts or the CA file is not valid.
    """
    service_accounts = ServiceAccounts(kube, time.monotonic)
    keys = Keys(PostgresKeys(engine), service_accounts, time.monotonic, _now)
    issuers: dict[str, Authenticator] = {}
    accounts = None
    if register.enabled:
        store, lifetime = PostgresAccounts(engine), timedelta(seconds=register.token_seconds)
        accounts = Accounts(
            store, service_accounts, Passwords(), register.key(), lifetime, time.monotonic, _now, counter
        )
        issuers[ISSUER] = accounts.caller
    async with AsyncExitStack() as stack:
        if oidc.issuer:
            fetcher = Fetcher(oidc.ca_file)
            stack.push_async_callback(fetcher.close)
            key_set = KeySet(oidc.issuer, fetcher, time.monotonic)
            stack.push_async_callback(key_set.close)
            issuers[oidc.issuer] = Oidc(oidc, key_set).caller
        recording = asyncio.create_task(keys.run())
        try:
            yield Identity(Tokens(auth.authenticate, keys.caller, issuers), keys, accounts)
        finally:
            recording.cancel()
            with suppress(asyncio.CancelledError):
                await recording


def _now() -> datetime:
    return datetime.now(UTC)
