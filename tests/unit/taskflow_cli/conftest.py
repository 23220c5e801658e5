from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.unit.taskflow_cli.fake import KUBECONFIG, Console, FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def run(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Console:
    # Tables show local times.
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    return Console(server, path, capsys)
