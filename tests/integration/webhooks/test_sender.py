"""Connections and responses of the sender, with real sockets and a canary that must not be reached."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from taskflow_api.webhooks import sender as module
from taskflow_api.webhooks.sender import ANSWER_BYTES, Sender
from taskflow_api.webhooks.url_policy import Policy, UrlNotAllowedError
from tests.hostile_urls import NAMES, URLS
from tests.webhook_receiver import Receiver, answer

pytestmark = pytest.mark.integration
PUBLIC = "93.184.215.14"


class Spy:
    """Every address that a socket of this process was told to connect to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[Any] = []
        connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

        def spied(made: socket.socket, address: Any) -> None:
            self._note(made, address)
            connect(made, address)

        def spied_ex(made: socket.socket, address: Any) -> int:
            self._note(made, address)
            return connect_ex(made, address)

        monkeypatch.setattr(socket.socket, "connect", spied)
        monkeypatch.setattr(socket.socket, "connect_ex", spied_ex)

    def _note(self, made: socket.socket, address: Any) -> None:
        if made.family in (socket.AF_INET, socket.AF_INET6):
            self.addresses.append(address)
            if address[0] == PUBLIC:
                raise ConnectionRefusedError("no test leaves this machine")


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """Listens on all addresses of this machine, in both families."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as made:
        made.setblocking(False)
        yield made


def reached(canary: socket.socket) -> bool:
    try:
        canary.accept()[0].close()
    except BlockingIOError:
        return False
    return True


async def named(host: str, port: int) -> list[str]:
    return NAMES[host] if host in NAMES else await module.resolve(host, port)


def lax(port: int, **more: Any) -> Policy:
    return Policy(ports=frozenset({80, 443, port}), http=True, **more)


def local(port: int) -> Policy:
    return lax(port, networks=(ipaddress.ip_network("127.0.0.0/8"),))


async def test_the_canary_and_the_spy_notice_connections(canary: socket.socket, spy: Spy) -> None:
    port = canary.getsockname()[1]
    sender = Sender(local(port), total_seconds=0.5)
    assert (await sender.send(f"http://127.0.0.1:{port}/", "{}", {})).status is None
    assert spy.addresses == [("127.0.0.1", port)]
    assert reached(canary)


async def test_no_hostile_url_is_connected_to(canary: socket.socket, spy: Spy) -> None:
    port = canary.getsockname()[1]
    sender = Sender(lax(port), resolve=named, total_seconds=5)
    for url in URLS:
        found = await sender.send(url.replace("{port}", str(port)), "{}", {})
        assert (found.status, found.error.partition(":")[0]) == (None, "refused"), (url, found)
    assert spy.addresses == []
    assert not reached(canary)
    assert len(URLS) > 120


async def test_a_host_name_rebound_after_the_check_is_not_connected_to(
    canary: socket.socket, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = canary.getsockname()[1]
    asked: list[str] = []

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = PUBLIC if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    sender = Sender(lax(port))
    first = await sender.send(f"http://rebound.example.com:{port}/", "{}", {})
    assert (first.error, spy.addresses, asked) == ("the connection failed", [(PUBLIC, port)], ["rebound.example.com"])
    second = await sender.send(f"http://rebound.example.com:{port}/", "{}", {})
    assert (second.error, len(asked)) == ("refused: the host has an address that is not public", 2)
    assert spy.addresses == [(PUBLIC, port)]
    assert not reached(canary)


async def test_sockets_are_created_only_for_checked_addresses() -> None:
    make = module._only_to(frozenset({PUBLIC}))
    make((socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 443))).close()
    with pytest.raises(UrlNotAllowedError):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443)))


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    with Receiver() as other:
        for status in (301, 302, 303, 307, 308):
            receiver.next = [answer(status, Location=f"{other.url}/stolen")]
            found = await Sender(local(receiver.port)).send(receiver.url, "{}", {})
            assert (found.status, found.ok) == (status, False)
        assert other.received == []


async def test_proxies_of_the_environment_are_ignored(
    receiver: Receiver, canary: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://127.0.0.1:{canary.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert (await Sender(local(receiver.port)).send(receiver.url, "{}", {})).status == 204
    assert not reached(canary)


async def test_only_the_first_kib_of_a_response_is_read(receiver: Receiver) -> None:
    written: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(500)
        handler.send_header("Retry-After", "77")
        handler.end_headers()
        for number in range(10_000):
            handler.wfile.write(b"x" * 65536)
            written.append(number)

    receiver.next = [endless]
    found = await Sender(local(receiver.port)).send(receiver.url, "{}", {})
    assert (found.status, found.body) == (500, "x" * ANSWER_BYTES)
    assert found.retry_after == dt.timedelta(seconds=77)
    assert len(written) < 1000


@pytest.mark.parametrize("where", ["silence", "headers", "body"])
async def test_a_slow_response_ends_with_the_time_limit(receiver: Receiver, where: str) -> None:
    ended: list[float] = []

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        elif where == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            for number in range(100):
                if where != "silence":
                    handler.wfile.write(f"x-{number}: 1\r\n".encode() if where == "headers" else b"x")
                time.sleep(0.05)
        ended.append(time.monotonic())

    receiver.next = [drip]
    begun = time.monotonic()
    found = await Sender(local(receiver.port), total_seconds=0.6).send(receiver.url, "{}", {})
    assert (found.status, found.error) == (None, "no complete response within 0.6 s")
    assert 0.5 < time.monotonic() - begun < 3


@pytest.mark.parametrize("bytes_", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n"])
async def test_a_response_that_is_not_http_is_an_error_message(receiver: Receiver, bytes_: bytes) -> None:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(bytes_)

    receiver.next = [behave]
    found = await Sender(local(receiver.port), total_seconds=5).send(receiver.url, "{}", {})
    assert found.status is None
    assert found.error
    assert "127.0.0.1" not in found.error


async def test_a_closed_port_is_an_error_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
    found = await Sender(local(port)).send(f"http://127.0.0.1:{port}/", "{}", {})
    assert (found.status, found.error) == (None, "the connection failed")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed one and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt", folder / "tls.key"


async def test_host_header_sni_and_certificate_use_the_host_name(
    tmp_path: Path,
) -> None:
    chain, key = certificate(tmp_path, "hooks.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    with Receiver(context) as receiver:
        trusting = Sender(local(receiver.port), ca_file=str(chain), resolve=resolve)
        found = await trusting.send(f"https://hooks.example.com:{receiver.port}/x", "{}", {})
        assert found.status == 204, found
        assert names == ["hooks.example.com"]
        (got,) = receiver.received
        assert got.headers["host"] == f"hooks.example.com:{receiver.port}"
        for sender, host in (
            (trusting, "other.example.com"),
            (Sender(local(receiver.port), resolve=resolve), "hooks.example.com"),
        ):
            found = await sender.send(f"https://{host}:{receiver.port}/", "{}", {})
            assert (found.status, found.error) == (None, "the certificate or TLS of the host is not valid")
        assert len(receiver.received) == 1


async def test_concurrent_messages_do_not_mix(receiver: Receiver) -> None:
    sender = Sender(local(receiver.port))
    answers = await asyncio.gather(*(sender.send(f"{receiver.url}/{n}", str(n), {"x-n": str(n)}) for n in range(30)))
    assert {each.status for each in answers} == {204}
    assert all(
        got.path == f"/{got.body.decode()}" and got.headers["x-n"] == got.body.decode() for got in receiver.received
    )
    assert len(receiver.received) == 30
