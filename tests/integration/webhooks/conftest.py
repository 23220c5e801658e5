from collections.abc import Iterator

import pytest

from tests.integration.store.conftest import database, engine, postgres
from tests.webhook_receiver import Receiver

__all__ = ["database", "engine", "postgres"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made
