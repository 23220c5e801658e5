"""HTTP to the API server with the standard library, which starts in a third of the time of a client library."""

from __future__ import annotations

import http.client
import ssl
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from taskflow_cli.cluster.credentials import Credentials
from taskflow_cli.cluster.kubeconfig import Access
from taskflow_cli.errors import CliError, Exit

_SECONDS = 30
_REUSE_SECONDS = 2
"""A connection that was idle for longer may have been closed by what is between."""
_LINE_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """A response whose body was read. Names of headers are in small letters."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Headers = Sequence[tuple[str, str]]


class Transport(Protocol):
    """Sends requests to one server. `path` starts with a slash and has its query."""

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "", more: Headers = ()
    ) -> Answer:
        """Send one request, with `more` headers.

        Raises:
            Unreachable: no answer came.
        """

    def lines(self, path: str, seconds: float) -> Iterator[bytes]:
        """GET, line by line as they come. It ends when the server ends it, or after a silence of `seconds`.

        Raises:
            Unreachable: the connection broke.
            Refused: the server refused.
        """


class Unreachable(CliError):  # noqa: N818 - says what the server is
    """The server did not answer."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(
            f"cannot reach {server}",
            why,
            hint="does the server run, and is this the right context? see: kubectl config get-contexts",
            code=Exit.UNREACHABLE,
        )


class Refused(Exception):  # noqa: N818 - an answer, not an error of this program
    """A stream was refused with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class HttpTransport:
    """Keeps one connection for requests, and opens one for each stream.

    Args:
        access: The server.
        credentials: Whom to be there.
        seconds: How long to wait for an answer.
    """

    def __init__(self, access: Access, credentials: Credentials, seconds: float = _SECONDS) -> None:
        self._access = access
        self._seconds = seconds
        self._url = urlsplit(access.server)
        self._headers = headers_of(access, credentials)
        self._context = tls_context(access, credentials) if self._url.scheme == "https" else None
        self._kept: http.client.HTTPConnection | None = None
        self._used = 0.0

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "", more: Headers = ()
    ) -> Answer:
        """Send one request, and read the answer."""
        connection, fresh = self._connection()
        try:
            response = self._send(connection, method, path, body, content_type, more)
            answer = _answer(response)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not fresh and method == "GET" and isinstance(error, ConnectionError | ssl.SSLError):
                # It was kept, and ended meanwhile. A read may be sent twice.
                return self.request(method, path, body, content_type, more)
            raise Unreachable(self._access.server, _reason(error)) from None
        self._used = time.monotonic()
        return answer

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def lines(self, path: str, seconds: float) -> Iterator[bytes]:
        """Read a stream of lines on a connection of its own."""
        connection = self._open(seconds)
        try:
            with closing(self._send(connection, "GET", path)) as response:
                if response.status != http.client.OK:
                    raise Refused(_answer(response))
                # A silence, or an end in the middle of a line, ends the stream: whoever reads it looks again.
                with suppress(TimeoutError, http.client.IncompleteRead):
                    while line := response.readline(_LINE_LIMIT):
                        yield line
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self._access.server, _reason(error)) from None
        finally:
            connection.close()

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        more: Headers = (),
    ) -> http.client.HTTPResponse:
        connection.putrequest(method, self._url.path + path)
        for name, value in (*self._headers, *more):
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Type", kind)
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse()

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """The connection to use, and whether it is a new one."""
        if time.monotonic() - self._used > _REUSE_SECONDS:
            self.close()
        if self._kept is not None:
            return self._kept, False
        self._kept = self._open(self._seconds)
        return self._kept, True

    def _open(self, seconds: float) -> http.client.HTTPConnection:
        url, proxy = self._url, urlsplit(self._access.proxy_url)
        if proxy.scheme not in {"", "http"}:
            raise CliError(
                f"the proxy-url of context {self._access.context!r} is not supported",
                f"expected http://, found {proxy.scheme}://",
                code=Exit.INVALID,
            )
        first = proxy if proxy.scheme else url
        address = (first.hostname or "", first.port or (443 if first.scheme == "https" else 80))
        if self._context is None:
            connection = http.client.HTTPConnection(*address, timeout=seconds)
        else:
            connection = _Https(address, self._context, self._access.tls_server_name, seconds)
        if proxy.scheme:
            connection.set_tunnel(url.hostname or "", url.port or 443, headers=_proxy_headers(proxy))
        return connection


class _Https(http.client.HTTPSConnection):
    """A connection that may expect another name in the certificate than that of the address."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, name: str, seconds: float) -> None:
        super().__init__(*address, context=context, timeout=seconds)
        self._tls, self._name = context, name

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and shake hands."""
        http.client.HTTPConnection.connect(self)
        host = self._name or getattr(self, "_tunnel_host", None) or self.host
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=host)


def headers_of(access: Access, credentials: Credentials) -> list[tuple[str, str]]:
    """The headers of every request."""
    headers = [("Accept", "application/json"), ("User-Agent", "taskflow-cli")]
    if credentials.token:
        headers.append(("Authorization", f"Bearer {credentials.token}"))
    user, groups = access.impersonation.user, access.impersonation.groups
    if user:
        headers.append(("Impersonate-User", user))
    return headers + [("Impersonate-Group", group) for group in groups]


def tls_context(access: Access, credentials: Credentials) -> ssl.SSLContext:
    """A context that trusts the CA of the kubeconfig, else those of this machine.

    Raises:
        CliError: a certificate cannot be used.
    """
    # Not create_default_context: it reads all CAs of the machine, which takes 50 ms.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif access.ca:
            context.load_verify_locations(cadata=access.ca)
        else:
            context.load_default_certs()
        if credentials.certificate:
            _load_pair(context, credentials)
    except (ssl.SSLError, ValueError) as error:
        raise CliError(f"a certificate of context {access.context!r} cannot be used", str(error)) from None
    return context


def _load_pair(context: ssl.SSLContext, credentials: Credentials) -> None:
    # OpenSSL reads a client's certificate from a file only. Nobody else may read this one, and it is gone at once.
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        path = Path(folder) / "pair.pem"
        path.touch(0o600)
        path.write_text(f"{credentials.certificate}\n{credentials.key}")
        context.load_cert_chain(path)


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, response.read(), headers)


def _proxy_headers(proxy: SplitResult) -> Mapping[str, str]:
    if proxy.username is None:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(login.encode()).decode()}


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
