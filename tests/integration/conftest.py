import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_core.settings import DatabaseSettings
from taskflow_local.stack import Stack
from tests.databases import Databases


@pytest.fixture(scope="session")
def postgres() -> Iterator[Stack]:
    """One PostgreSQL for all tests of a process. A test that stops it starts it again."""
    # Not pytest's own folder, which PostgreSQL's user may not pass when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "state", components=("postgres",))
        try:
            stack.up(log=lambda _: None)
            yield stack
        finally:
            stack.down(log=lambda _: None)


@pytest.fixture(scope="session")
def databases(postgres: Stack) -> Databases:
    return Databases(postgres)


@pytest.fixture
def database(databases: Databases) -> Iterator[DatabaseSettings]:
    """A database without a schema."""
    with databases.empty() as made:
        yield made


@pytest.fixture
def migrated(databases: Databases) -> Iterator[DatabaseSettings]:
    """A database with the schema of the migrations."""
    with databases.migrated() as made:
        yield made
