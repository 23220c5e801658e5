"""Redis with TLS: whoever does not prove to be the server of that name is not told the password."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kombu import pools
from pydantic import SecretStr

from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_async, connect_sync, redis_errors
from taskflow_core.settings import RedisSettings
from taskflow_local import pki
from taskflow_local.state import port_is_free
from tests.builders import make_message
from tests.e2e.product import eventually
from tests.integration.taskflow_worker.process import Workers

pytestmark = pytest.mark.integration
PASSWORD = "not-for-strangers"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and a certificate of it for localhost and 127.0.0.1."""
    return certificates(tmp_path_factory.mktemp("ours"))


def certificates(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    pki.create(folder, datetime.now(UTC))
    return folder


@dataclass
class Impostor:
    """A server with TLS that agrees to everything, and notes what it is told."""

    folder: Path
    heard: list[bytes] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        self.listener = socket.create_server(("", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        try:
            with client, self.context.wrap_socket(client, server_side=True) as stream:
                # With TLS 1.3 the server's handshake is over before the client has said what it thinks of it.
                while data := stream.recv(4096):
                    self.heard.append(data)
                    stream.sendall(b"+OK\r\n")
                self.refused += 1
        except (ssl.SSLError, OSError):
            self.refused += 1


@pytest.fixture
def impostor() -> Iterator[Callable[[Path], Impostor]]:
    made: list[Impostor] = []

    def start(folder: Path) -> Impostor:
        made.append(Impostor(folder))
        return made[-1]

    yield start
    for each in made:
        each.listener.close()
    pools.reset()


@dataclass
class TlsRedis:
    """A Redis that serves TLS only."""

    port: int
    ca: str

    def settings(self, host: str = "localhost", query: str = "", ca: str | None = None) -> RedisSettings:
        return settings_of(host, self.port, self.ca if ca is None else ca, query)


def settings_of(host: str, port: int, ca: str, query: str = "") -> RedisSettings:
    return RedisSettings(url=SecretStr(f"rediss://:{PASSWORD}@{host}:{port}/0{query}"), ca=ca)


@pytest.fixture(scope="module")
def tls_redis(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    port = next(port for port in range(21_000, 22_000) if port_is_free(port))
    folder = tmp_path_factory.mktemp("redis")
    lines = {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(ours / "server.crt"),
        "tls-key-file": str(ours / "server.key"),
        "tls-auth-clients": "no",
        "requirepass": PASSWORD,
        "dir": str(folder),
        "save": '""',
    }
    process = subprocess.Popen(["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        process.stdin.write("".join(f"{name} {value}\n" for name, value in lines.items()).encode())
        process.stdin.close()
        made = TlsRedis(port, (ours / "ca.crt").read_text())
        eventually(lambda: answers(made.settings()), bool)
        yield made
    finally:
        process.terminate()
        process.wait()
        pools.reset()


def answers(settings: RedisSettings) -> bool:
    try:
        ping(settings)
    except Unavailable:
        return False
    return True


def ping(settings: RedisSettings) -> None:
    client = connect_sync(settings)
    try:
        with redis_errors():
            client.ping()
    finally:
        client.connection_pool.disconnect()


def ping_async(settings: RedisSettings) -> None:
    async def asked() -> None:
        client = connect_async(settings)
        try:
            with redis_errors():
                await client.ping()
        finally:
            await client.aclose()
            await client.connection_pool.disconnect()

    asyncio.run(asked())


def publish(settings: RedisSettings) -> None:
    publisher = Publisher(settings)
    try:
        publisher.publish([Outgoing(make_message(), 1)])
    finally:
        publisher.close()


CLIENTS = [ping, ping_async, publish]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_of_a_stranger_is_refused_before_the_password_is_sent(
    client: Callable[[RedisSettings], None], impostor: Callable[[Path], Impostor], ours: Path, tmp_path: Path
) -> None:
    server = impostor(certificates(tmp_path))
    for ca in ("", (ours / "ca.crt").read_text()):
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            client(settings_of("localhost", server.port, ca))
    assert server.heard == []


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_of_another_name_is_refused_before_the_password_is_sent(
    client: Callable[[RedisSettings], None], impostor: Callable[[Path], Impostor], ours: Path
) -> None:
    server = impostor(ours)
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client(settings_of("127.0.0.2", server.port, (ours / "ca.crt").read_text()))
    assert server.heard == []


@pytest.mark.parametrize("client", CLIENTS)
def test_the_right_authority_and_name_are_let_in(
    client: Callable[[RedisSettings], None], tls_redis: TlsRedis, ours: Path
) -> None:
    client(tls_redis.settings())
    client(tls_redis.settings("127.0.0.1"))
    client(tls_redis.settings(query=f"?ssl_ca_certs={ours / 'ca.crt'}", ca=""))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client(tls_redis.settings(ca=""))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        client(tls_redis.settings("127.0.0.2", query=f"?ssl_ca_certs={ours / 'ca.crt'}"))


def test_a_worker_tells_an_impostor_nothing_and_works_with_the_right_redis(
    tls_redis: TlsRedis, impostor: Callable[[Path], Impostor], tmp_path: Path
) -> None:
    server = impostor(certificates(tmp_path / "stranger"))
    raw = connect_sync(tls_redis.settings())
    raw.flushall()
    right = Workers(tls_redis.settings(), tls_redis.settings(), raw, tmp_path, {"TASKFLOW_REDIS_CA": tls_redis.ca})
    fooled = Workers(
        tls_redis.settings(), settings_of("localhost", server.port, tls_redis.ca), raw, tmp_path, right.environment
    )
    try:
        fooled._spawn("fooled", {})
        eventually(lambda: server.refused, lambda refused: refused >= 2, 120)
        right.start("right")
        right.send(["u1"])
        right.finished(["u1"])
    finally:
        right.end_all()
        for process in fooled.processes:
            process.kill()
            process.wait()
        raw.connection_pool.disconnect()
    assert server.heard == []
    assert PASSWORD.encode() not in fooled.log("fooled").read_bytes()
