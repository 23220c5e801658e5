"""PostgreSQL and S3 with certificates of a private authority. Redis is in `taskflow_worker/test_tls.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url, text

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.settings import DatabaseSettings, RedisSettings, StorageSettings
from taskflow_core.store.engine import create_engine, transaction
from taskflow_local import pki
from taskflow_local.postgres import unprivileged_user
from taskflow_local.stack import Stack
from taskflow_provisioner.s3_logins import MinioLogins, _as
from tests.databases import Databases
from tests.integration.services.conftest import Minio
from tests.integration.taskflow_worker.process import Workers
from tests.redis_users import as_worker

pytestmark = pytest.mark.integration


@pytest.fixture
def stranger(tmp_path: Path) -> str:
    """The certificate of another authority."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    pki.create(folder, datetime.now(UTC))
    return (folder / "ca.crt").read_text()


def administer(stack: Stack, *statements: sql.Composed | sql.SQL) -> None:
    url = make_url(stack.env()["TASKFLOW_DATABASE_URL"])
    password = stack.folder.load().postgres_admin_password
    with psycopg.connect(
        host=url.host, port=url.port, user="postgres", password=password, dbname="postgres", autocommit=True
    ) as connection:
        for statement in statements:
            connection.execute(statement)


@dataclass
class TlsPostgres:
    """A PostgreSQL that has a certificate of the authority."""

    url: str
    ca: str

    def settings(self, query: str = "", ca: str | None = None) -> DatabaseSettings:
        return DatabaseSettings(url=SecretStr(self.url + query), ca=self.ca if ca is None else ca)


@pytest.fixture
def tls_postgres(postgres: Stack, databases: Databases, authority: Path) -> Iterator[TlsPostgres]:
    data = postgres.folder.data / "postgres"
    for name in ("server.crt", "server.key"):
        shutil.copy(authority / name, data / name)
        if (user := unprivileged_user()) is not None:
            shutil.chown(data / name, user)
        (data / name).chmod(0o600)
    turn = sql.SQL("ALTER SYSTEM SET ssl = {}")
    reload = sql.SQL("SELECT pg_reload_conf()")
    url = make_url(databases.empty().url.get_secret_value()).set(host="localhost")
    made = TlsPostgres(url.render_as_string(hide_password=False), (authority / "ca.crt").read_text())
    administer(postgres, turn.format("on"), reload)
    try:
        yield made
    finally:
        administer(postgres, turn.format("off"), reload)


async def encrypted(settings: DatabaseSettings) -> bool:
    engine = create_engine(settings, application_name="test")
    try:
        async with transaction(engine) as connection:
            return bool(await connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")))
    finally:
        await engine.dispose()


async def test_postgresql_is_verified_by_the_given_authorities(tls_postgres: TlsPostgres, stranger: str) -> None:
    # The server reads its new configuration a moment later.
    for _ in range(100):
        try:
            assert await encrypted(tls_postgres.settings())
            break
        except Unavailable as error:
            assert "does not support SSL" in str(error)  # noqa: PT017 - it may pass
    assert await encrypted(tls_postgres.settings("?sslmode=verify-ca"))
    for settings in (tls_postgres.settings(ca=stranger), tls_postgres.settings("?sslmode=verify-full", ca="")):
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await encrypted(settings)
    other = tls_postgres.url.replace("localhost", "another.example")
    with pytest.raises(Unavailable, match="does not match host name"):
        await encrypted(
            DatabaseSettings(url=SecretStr(f"{other}?hostaddr=127.0.0.1"), ca=tls_postgres.ca),
        )


def test_the_migration_verifies_postgresql(tls_postgres: TlsPostgres, stranger: str) -> None:
    def migrate(ca: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "taskflow_core.store.migrate", *arguments],
            env={**os.environ, "TASKFLOW_DATABASE_URL": tls_postgres.url, "TASKFLOW_DATABASE_CA": ca},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    refused = migrate(stranger)
    assert (refused.returncode, "certificate verify failed" in refused.stderr) == (1, True), refused.stderr
    done = migrate(tls_postgres.ca, "--patience", "30")
    assert done.returncode == 0, done.stderr
    assert migrate(tls_postgres.ca, "wait").returncode == 0


def test_s3_is_verified_by_the_given_authorities(minio: Minio, stranger: str) -> None:
    for host in ("localhost", "127.0.0.1"):
        store = ObjectStore(minio.settings(host))
        store.put_bytes("tls/x", b"content")
        assert store.get_bytes("tls/x") == b"content"
    for ca in ("", stranger):
        with pytest.raises(Unavailable, match="the certificate is refused: "):
            ObjectStore(minio.settings(ca=ca)).check()
    with pytest.raises(Unavailable, match="the certificate is refused: IP address mismatch"):
        ObjectStore(minio.settings("0.0.0.0")).check()


def test_the_provisioner_makes_keys_over_verified_tls(minio: Minio, stranger: str) -> None:
    key = MinioLogins(minio.settings()).make("team-a", None)
    ObjectStore(_as(minio.settings(), key)).list(naming.object_prefix("team-a"))
    with pytest.raises(Unavailable, match="the certificate is refused"):
        MinioLogins(minio.settings(ca=stranger)).make("team-a", None)


def test_a_worker_stores_over_verified_tls(minio: Minio, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "state", components=("redis",))
    try:
        stack.up(log=lambda _: None)
        settings = RedisSettings(url=SecretStr(stack.env()["TASKFLOW_REDIS_URL"]))
        raw = connect_sync(settings)
        workers = Workers(
            settings, as_worker(settings, raw, "team-a"), raw, tmp_path, environment(minio.settings()) | _HANDLER
        )
        try:
            workers.start("tls")
            workers.send(["u1"], "e2e.big_result", size=300_000)
            workers.finished(["u1"])
        finally:
            workers.end_all()
            raw.connection_pool.disconnect()
    finally:
        stack.down(log=lambda _: None)
    stored = ObjectStore(minio.settings()).list(naming.object_prefix("team-a"))
    assert any("u1" in each.key for each in stored)


_HANDLER = {"TASKFLOW_WORKER_PATIENCE_SECONDS": "5"}


def environment(storage: StorageSettings) -> dict[str, str]:
    return {
        "TASKFLOW_S3_ENDPOINT": storage.endpoint,
        "TASKFLOW_S3_BUCKET": storage.bucket,
        "TASKFLOW_S3_ACCESS_KEY": storage.access_key.get_secret_value(),
        "TASKFLOW_S3_SECRET_KEY": storage.secret_key.get_secret_value(),
        "TASKFLOW_S3_CA": storage.ca,
    }
