"""The public keys of an OIDC issuer: found by discovery, cached, and fetched again for an unknown key."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import certifi
import jwt

from taskflow_api.urls import safe_url
from taskflow_core.errors import Invalid, TaskflowError, Unavailable
from taskflow_core.kube.deep_json import read_json
from taskflow_core.telemetry.logs import get_logger

FRESH_SECONDS = 300.0
"""After this time the keys are fetched again in the background, so that withdrawn keys stop working."""
RETRY_SECONDS = 10.0
"""The minimum time between two fetches, whatever keys the tokens name."""
MAX_BYTES = 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_log = get_logger(__name__)
Fetch = Callable[[str], Awaitable[dict[str, Any]]]
"""The JSON object at a URL; raises Unavailable."""


class KeySet:
    """The keys of one issuer. Cached keys keep working while the issuer is unavailable."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: list[dict[str, Any]] = []
        self._parsed: dict[tuple[str | None, str], jwt.PyJWK] = {}
        self._fresh_until = 0.0
        self._not_before = 0.0
        self._failed = True
        self._refreshing: asyncio.Task[None] | None = None

    async def key(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key with that id and algorithm; without an id, the only key. None if the issuer has no such key.

        Raises:
            Unavailable: the key is not cached, and the issuer does not answer.
        """
        found = self._find(kid)
        if found is None:
            await self._refresh()
            found = self._find(kid)
        elif self._clock() >= self._fresh_until and self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        if found is not None:
            return self._parse(found, kid, algorithm)
        if self._failed:
            raise Unavailable(f"OIDC issuer {self._issuer} does not answer, and the token's key is not known")
        return None

    async def close(self) -> None:
        """Cancel a running fetch."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _refreshed(self, _: asyncio.Task[None]) -> None:
        self._refreshing = None

    def _find(self, kid: str | None) -> dict[str, Any] | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.get("kid") == kid), None)

    def _parse(self, found: dict[str, Any], kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        if found.get("alg", algorithm) != algorithm:
            return None
        if (kid, algorithm) not in self._parsed:
            try:
                self._parsed[kid, algorithm] = jwt.PyJWK(found, algorithm)
            except jwt.PyJWTError:
                return None
        return self._parsed[kid, algorithm]

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was just done."""
        async with self._lock:
            now = self._clock()
            if now < self._not_before:
                return
            self._not_before = now + RETRY_SECONDS
            try:
                keys = await self._discover()
            except TaskflowError as error:
                self._failed = True
                _log.warning("oidc_keys_not_read", issuer=self._issuer, cause=str(error), known=len(self._keys))
                return
            self._keys, self._parsed, self._failed = keys, {}, False
            self._fresh_until = now + FRESH_SECONDS

    async def _discover(self) -> list[dict[str, Any]]:
        """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig"""
        document = await self._fetch(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise Unavailable(f"its discovery document names issuer {str(document.get('issuer'))[:200]!r}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not safe_url(url):
            raise Unavailable("its jwks_uri is not an https URL")
        keys = (await self._fetch(url)).get("keys")
        usable = [key for key in keys if _usable(key)] if isinstance(keys, list) else []
        if not usable:
            raise Unavailable("it has no public signing key")
        return usable


def _usable(key: Any) -> bool:
    """Whether it is a public signing key. A key of type `oct` would be a published secret."""
    return isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"


class Fetcher:
    """`Fetch` over HTTP: no redirects, at most 5 s and 1 MiB, through the proxy of the environment.

    Raises:
        Invalid: the certificates cannot be read.
    """

    def __init__(self, ca_file: str) -> None:
        try:
            context = ssl.create_default_context(cafile=ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where())
        except OSError as error:
            raise Invalid(f"TASKFLOW_OIDC_CA_FILE: expected certificates in PEM, found {error}") from error
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), timeout=_TIMEOUT, trust_env=True
        )

    async def __call__(self, url: str) -> dict[str, Any]:
        """See `Fetch`."""
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:  # noqa: PLR2004 - 200 OK
                    raise Unavailable(f"GET {url}: status {response.status}")
                content = b""
                async for chunk in response.content.iter_chunked(65536):
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise Unavailable(f"GET {url}: more than {MAX_BYTES} bytes")
            found = read_json(content)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"GET {url}: {str(error) or type(error).__name__}") from error
        if not isinstance(found, dict):
            raise Unavailable(f"GET {url}: the response is not a JSON object")
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
