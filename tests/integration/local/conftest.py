import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_local.stack import Stack
from tests.integration.local.cluster import CONTROL_PLANE


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may pass when the tests run as root; pytest's own is closed to it."""
    with tempfile.TemporaryDirectory(prefix="taskflow-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "state"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A control plane with a node, for the tests of one module."""
    stack = Stack(tmp_path_factory.mktemp("stack"), (*CONTROL_PLANE, "redis"))
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
