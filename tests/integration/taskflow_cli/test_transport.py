"""Connections to a server with TLS: certificates of both sides, a proxy, and a server that ends connections."""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from taskflow_cli.cluster.credentials import Credentials
from taskflow_cli.cluster.kubeconfig import Access
from taskflow_cli.cluster.transport import HttpTransport, Refused, Unreachable
from taskflow_local import pki

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.create(folder, datetime.now(UTC))
    return folder


class _Api(BaseHTTPRequestHandler):
    """Answers with what it got; keeps connections, unless the path says otherwise."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/refused"):
            self._answer(403, {"message": "no"})
        elif self.path.startswith("/stream"):
            self._stream()
        else:
            assert isinstance(self.connection, ssl.SSLSocket)
            peer: Any = self.connection.getpeercert() or {}
            names = [value for part in peer.get("subject", ()) for _, value in part]
            self._answer(200, {"headers": dict(self.headers), "client": names, "port": self.client_address[1]})
            # Without a word, as what is between does with connections that were idle.
            self.close_connection = self.path.startswith("/once")

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in (b'{"n": 1}\n', b'{"n": 2}\n'):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if self.path == "/stream/cut":
            self.wfile.write(b'8\r\n{"n"')
        elif self.path == "/stream/silent":
            self.wfile.flush()
            self.rfile.read(1)
        else:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def api(certificates: Path) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield port


class _Transports:
    """Makes transports, and closes them at the end of the test."""

    def __init__(self) -> None:
        self.made: list[HttpTransport] = []

    def __call__(self, access: Access, credentials: Credentials) -> HttpTransport:
        self.made.append(HttpTransport(access, credentials))
        return self.made[-1]


@pytest.fixture
def reach() -> Iterator[_Transports]:
    transports = _Transports()
    yield transports
    for each in transports.made:
        each.close()


def access(port: int, certificates: Path, host: str = "127.0.0.1", **more: Any) -> Access:
    return Access(f"https://{host}:{port}", ca=(certificates / "ca.crt").read_text(), **more)


def got(transport: HttpTransport, path: str = "/x") -> dict[str, Any]:
    answer = transport.request("GET", path)
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_a_certificate_of_the_client_is_shown(api: int, certificates: Path, reach: _Transports) -> None:
    texts = [(certificates / f"node-client.{kind}").read_text() for kind in ("crt", "key")]
    transport = reach(access(api, certificates), Credentials(certificate=texts[0], key=texts[1]))
    assert got(transport)["client"] == [pki.NODE_CLIENT]
    assert got(reach(access(api, certificates), Credentials("t")))["client"] == []


def test_the_name_in_the_certificate_may_be_another_than_that_of_the_address(
    api: int, certificates: Path, reach: _Transports
) -> None:
    # A name of this machine that is not in the certificate.
    other = access(api, certificates, "127.1")
    with pytest.raises(Unreachable, match="its certificate is not trusted"):
        reach(other, Credentials("t")).request("GET", "/x")
    named = access(api, certificates, "127.1", tls_server_name="localhost")
    assert got(reach(named, Credentials("t")))["headers"]["Authorization"] == "Bearer t"


def test_a_connection_is_kept_and_one_that_was_ended_is_replaced(
    api: int, certificates: Path, reach: _Transports
) -> None:
    transport = reach(access(api, certificates), Credentials("t"))
    assert got(transport)["port"] == got(transport)["port"]
    first = got(transport, "/once")["port"]
    assert got(transport)["port"] != first
    got(transport, "/once")
    with pytest.raises(Unreachable):
        # What may have been done is not sent twice.
        transport.request("POST", "/x", b"{}", "application/json")


def test_a_stream_ends_with_the_server_a_cut_or_a_silence(api: int, certificates: Path) -> None:
    transport = HttpTransport(access(api, certificates), Credentials("t"))
    both = [b'{"n": 1}\n', b'{"n": 2}\n']
    assert list(transport.lines("/stream/whole", 30)) == both
    assert list(transport.lines("/stream/silent", 1)) == both
    assert list(transport.lines("/stream/cut", 30))[:2] == both
    with pytest.raises(Refused) as caught:
        list(transport.lines("/refused", 30))
    assert caught.value.answer.status == 403


@dataclass
class _Proxy:
    """Passes connections on; keeps the first lines of what it was asked."""

    listener: socket.socket
    asked: list[bytes] = field(default_factory=list)

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            self.asked += head.split(b"\r\n")
            host, port = head.split(b" ")[1].decode().rsplit(":", 1)
            with socket.create_connection((host, int(port))) as server, selectors.DefaultSelector() as ready:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                ready.register(connection, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, connection)
                while True:
                    for key, _ in ready.select():
                        assert isinstance(key.fileobj, socket.socket)
                        if not (content := key.fileobj.recv(65536)):
                            return
                        key.data.sendall(content)


def test_a_proxy_gets_its_own_login_and_nothing_of_the_server(api: int, certificates: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = _Proxy(listener)
        thread = threading.Thread(target=proxy.serve)
        thread.start()
        url = f"http://me:p%40ss@127.0.0.1:{listener.getsockname()[1]}"
        transport = HttpTransport(access(api, certificates, "localhost", proxy_url=url), Credentials("t"))
        headers = got(transport)["headers"]
        transport.close()
        thread.join()
    assert proxy.asked[0].startswith(f"CONNECT localhost:{api} HTTP/1.".encode())
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.asked
    assert not [line for line in proxy.asked if line.lower().startswith(b"authorization")]
    assert "Proxy-Authorization" not in headers


def test_a_proxy_of_another_kind_is_refused(certificates: Path) -> None:
    with pytest.raises(Exception, match="expected http://, found socks5://"):
        HttpTransport(access(1, certificates, proxy_url="socks5://127.0.0.1:1"), Credentials("t")).request("GET", "/")
