from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskflow_local.stack import Stack
from tests.chart.server import Server


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A real API server; the controller manager, because it joins aggregated roles."""
    with tempfile.TemporaryDirectory(prefix="taskflow-chart-") as folder:
        components = ("etcd", "kube-apiserver", "kube-controller-manager")
        stack = Stack(Path(folder) / "stack", components=components, environ=dict(os.environ))
        try:
            stack.up(log=lambda _: None)
            yield Server(stack)
        finally:
            stack.down()
