"""Sends one message over HTTP, only to addresses that the URL policy allows."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from taskflow_api.webhooks.retry_schedule import read_retry_after
from taskflow_api.webhooks.url_policy import Policy, UrlNotAllowedError, check_addresses, check_url

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
"""The limit for a whole attempt, from name resolution to the end of the response."""
ANSWER_BYTES = 1024
"""How much of a response is read. The rest is never fetched."""
GONE = 410
USER_AGENT = "TaskFlow-Webhooks/1"
Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of an attempt."""

    status: int | None = None
    """None if there was no response."""
    error: str = ""
    """A message if there was no response."""
    body: str = ""
    seconds: float = 0.0
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        """Whether the message was delivered. Only 2xx means success."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more messages."""
        return self.status == GONE


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host from the system's resolver.

    Raises:
        OSError: the name does not resolve.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Sender:
    """Sends messages to allowed addresses. One sender is enough for a process.

    Each attempt resolves the host once and connects only to the checked addresses. Sockets are created for no other
    address, so neither a second resolution nor a literal address in the URL bypasses the check. Proxies of the
    environment are not used, redirects are not followed, cookies are not kept, and connections are not reused.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        ca_file: str = "",
        resolve: Resolve = resolve,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        self._tls = ssl.create_default_context(cafile=ca_file or None)
        self._total = total_seconds

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        """Send one POST. Errors are reported in the answer."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._total):
                answer = await self._post(url, body, headers)
        except TimeoutError:
            answer = Answer(error=f"no complete response within {self._total:g} s")
        except UrlNotAllowedError as error:
            answer = Answer(error=f"refused: {error}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = Answer(error=_message(error))
        return Answer(answer.status, answer.error, answer.body, time.monotonic() - begun, answer.retry_after)

    async def _post(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        target = check_url(url, self._policy)
        host = target.raw_host or ""
        addresses = check_addresses(host, await self._resolve(host, target.port or 443), self._policy)
        connector = aiohttp.TCPConnector(
            resolver=_Resolved(addresses),
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls,
            socket_factory=_only_to(frozenset(addresses)),
        )
        timeout = aiohttp.ClientTimeout(total=self._total, sock_connect=CONNECT_SECONDS)
        sent = {**headers, "Content-Type": "application/json", "User-Agent": USER_AGENT}
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            ) as session,
            session.post(target, data=body.encode(), headers=sent, allow_redirects=False) as response,
        ):
            first = await _first_bytes(response.content)
            retry_after = read_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
            # Closes the connection without reading the rest.
            response.close()
            return Answer(response.status, body=first.decode(errors="replace"), retry_after=retry_after)


async def _first_bytes(content: aiohttp.StreamReader) -> bytes:
    found = b""
    while len(found) < ANSWER_BYTES:
        piece = await content.read(ANSWER_BYTES - len(found))
        if not piece:
            break
        found += piece
    return found


class _Resolved(AbstractResolver):
    """A resolver that returns the addresses that were checked."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - the signature of aiohttp
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=each,
                port=port,
                proto=0,
                flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
            )
            for each in self._addresses
        ]

    async def close(self) -> None:
        pass


def _only_to(addresses: frozenset[str]) -> Callable[[Any], socket.socket]:
    """A socket factory that refuses all other addresses, as the last check before the connection."""

    def make(info: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, address = info
        if str(address[0]) not in addresses:
            raise UrlNotAllowedError("the address was not checked")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return make


def _message(error: BaseException) -> str:
    """An error message for users, without addresses or certificates of an internal network."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
        return "the certificate or TLS of the host is not valid"
    if isinstance(error, socket.gaierror):
        return "the host name does not resolve"
    if isinstance(error, aiohttp.ServerTimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
        return "the connection failed"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionError):
        return "the connection was interrupted"
    return f"no HTTP response ({type(error).__name__})"
