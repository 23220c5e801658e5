from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_local.stack import Stack
from tests.integration.taskflow_operator.process import Operators

PARTS = ("etcd", "kube-apiserver", "redis", "postgres", "operator")


@pytest.fixture(scope="package")
def servers() -> Iterator[Stack]:
    """What an operator needs; its own one is stopped."""
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        # PostgreSQL's user has to pass when the tests run as root.
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "state", components=PARTS)
        try:
            stack.up(log=lambda _: None)
            stack.stop("operator")
            yield stack
        finally:
            stack.down()


@pytest.fixture
def operators(servers: Stack, tmp_path: Path) -> Iterator[Operators]:
    """Starts operators; those that still run are ended."""
    made = Operators(servers, tmp_path)
    yield made
    made.end()
