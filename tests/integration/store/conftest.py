import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import engine as engines
from taskflow_core.store.migrate import migrate
from taskflow_local.stack import Stack


@pytest.fixture(scope="package")
def postgres() -> Iterator[Stack]:
    # Not pytest's own folder, which PostgreSQL's user may not pass when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "state", components=("postgres",))
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


@pytest.fixture
def database(postgres: Stack) -> DatabaseSettings:
    """The database, empty."""
    settings = DatabaseSettings(url=SecretStr(postgres.env()["TASKFLOW_DATABASE_URL"]))
    with create_engine(settings.url.get_secret_value(), poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return settings


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """A pool on a database with the schema of the migrations."""
    migrate(create_engine(database.url.get_secret_value(), poolclass=NullPool))
    made = engines.create_engine(database, application_name="test")
    yield made
    await made.dispose()
