from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import engine as engines


@pytest.fixture
async def engine(migrated: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    """A pool on a database with the schema of the migrations."""
    made = engines.create_engine(migrated, application_name="test")
    yield made
    await made.dispose()
