from collections.abc import Iterator

import pytest

from tests.integration.store.conftest import engine
from tests.webhook_receiver import Receiver

__all__ = ["engine"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made
