"""Credentials that change under a running process, which reads them from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url, text

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.broker import acl
from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain import naming
from taskflow_core.errors import Forbidden, Unavailable
from taskflow_core.ledger.connect import connect_async, connect_sync, redis_errors
from taskflow_core.settings import DatabaseSettings, RedisSettings, StorageSettings
from taskflow_core.store.engine import create_engine, transaction
from taskflow_local.stack import Stack
from taskflow_provisioner.s3_logins import MinioLogins
from tests.builders import make_message
from tests.databases import Databases
from tests.e2e.product import eventually
from tests.integration.services.conftest import Minio
from tests.integration.services.test_tls import administer
from tests.integration.taskflow_worker.process import Workers
from tests.redis_users import PASSWORD, as_worker

pytestmark = pytest.mark.integration
NEW = "a/new@password"
ENCODED = "a%2Fnew%40password"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def redis_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("redis") / "state", components=("redis",))
    try:
        stack.up(log=lambda _: None)
        yield stack
    finally:
        stack.down(log=lambda _: None)


@pytest.fixture
def workers(redis_stack: Stack, tmp_path: Path) -> Iterator[Workers]:
    settings = RedisSettings(url=SecretStr(redis_stack.env()["TASKFLOW_REDIS_URL"]))
    raw = connect_sync(settings)
    raw.flushall()
    made = Workers(settings, as_worker(settings, raw, "team-a"), raw, tmp_path)
    try:
        yield made
    finally:
        made.end_all()
        raw.connection_pool.disconnect()


def rotate(workers: Workers) -> None:
    """The worker's user has another password, and none of its connections is left."""
    user, raw = acl.worker_user("team-a"), cast("Any", workers.raw)
    raw.execute_command("ACL", "SETUSER", user, "resetpass", f">{NEW}")
    raw.execute_command("CLIENT", "KILL", "USER", user)


def test_a_worker_goes_on_with_the_new_password_of_redis(workers: Workers, files: Path) -> None:
    file = files / "TASKFLOW_REDIS_URL"
    url = workers.own_settings.url.get_secret_value()
    file.write_text(url)
    process = workers.start("rotated")
    numbers = count()

    def trickle() -> list[str]:
        uids = [f"u{next(numbers)}" for _ in range(5)]
        workers.send(uids)
        return uids

    sent = trickle()
    workers.finished(sent)
    rotate(workers)
    sent += trickle()
    # Said once it was refused, and without any password.
    log = workers.log("rotated")
    eventually(log.read_text, lambda said: "invalid username-password" in said, 60)
    file.write_text(url.replace(PASSWORD, ENCODED))
    sent += trickle()
    workers.finished(sent, 120)
    assert process.poll() is None
    assert not any(word in log.read_text() for word in (PASSWORD, NEW, ENCODED))


async def test_clients_and_publishers_go_on_with_the_new_password_of_redis(workers: Workers, files: Path) -> None:
    file = files / "TASKFLOW_REDIS_URL"
    url = workers.own_settings.url.get_secret_value()
    file.write_text(url)
    settings = RedisSettings()
    raw = cast("Any", workers.raw)
    raw.execute_command("ACL", "SETUSER", acl.worker_user("team-a"), "allcommands", "allkeys")
    several, one, publisher = connect_async(settings), connect_sync(settings), Publisher(settings)

    async def use() -> None:
        with redis_errors():
            await several.ping()
            one.ping()
        publisher.publish([Outgoing(make_message(), 1)])

    try:
        await use()
        rotate(workers)
        with pytest.raises(Unavailable, match="invalid username-password"):
            await use()
        with pytest.raises(Unavailable, match="invalid username-password"):
            publisher.publish([Outgoing(make_message(), 1)])
        file.write_text(url.replace(PASSWORD, ENCODED))
        await use()
    finally:
        await several.aclose()
        await several.connection_pool.disconnect()
        one.connection_pool.disconnect()
        publisher.close()


async def test_a_pool_goes_on_with_the_new_password_of_postgresql(
    postgres: Stack, databases: Databases, files: Path
) -> None:
    role = sql.Identifier("rotating")
    administer(postgres, sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'former'").format(role))
    url = make_url(databases.empty().url.get_secret_value()).set(username="rotating", password="former")
    file = files / "TASKFLOW_DATABASE_URL"
    file.write_text(url.render_as_string(hide_password=False))
    engine = create_engine(DatabaseSettings(), application_name="test")

    async def use() -> None:
        async with transaction(engine) as connection:
            assert await connection.scalar(text("SELECT current_user")) == "rotating"

    try:
        await use()
        administer(
            postgres,
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, NEW),
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'"),
        )
        with pytest.raises(Unavailable, match="password authentication failed for user"):
            await use()
        file.write_text("postgresql+psycopg://rotating:a/b@host/db")
        with pytest.raises(Unavailable, match="cannot be read again: expected postgresql") as caught:
            await use()
        assert "a/b" not in str(caught.value)
        file.write_text(url.set(password=NEW).render_as_string(hide_password=False))
        await use()
    finally:
        await engine.dispose()


def test_a_store_goes_on_with_the_new_key_of_s3(minio: Minio, files: Path) -> None:
    logins, prefix = MinioLogins(minio.settings()), naming.object_prefix("team-r")
    key = logins.make("team-r", None)
    files.joinpath("TASKFLOW_S3_ACCESS_KEY").write_text(key.access_key)
    files.joinpath("TASKFLOW_S3_SECRET_KEY").write_text(key.secret_key)
    # The rest is in files.
    store = ObjectStore(
        StorageSettings.model_validate(minio.settings().model_dump(include={"endpoint", "bucket", "ca"}))
    )
    store.put_bytes(f"{prefix}x", b"content")
    key = logins.make("team-r", None)
    eventually(refusal(lambda: store.head(f"{prefix}x")), lambda said: "403" in said)
    files.joinpath("TASKFLOW_S3_SECRET_KEY").write_text(key.secret_key)
    assert store.get_bytes(f"{prefix}x") == b"content"
    files.joinpath("TASKFLOW_S3_SECRET_KEY").unlink()
    assert "its key cannot be read again: No such file" in refusal(lambda: store.head(f"{prefix}x"))()


def refusal(act: Callable[[], object]) -> Callable[[], str]:
    def said() -> str:
        try:
            act()
        except (Forbidden, Unavailable) as error:
            return str(error)
        return ""

    return said
