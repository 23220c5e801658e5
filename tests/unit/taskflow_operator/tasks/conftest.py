from __future__ import annotations

import pytest

from taskflow_operator.runtime import dependency_health, status_writer
from taskflow_operator.tasks import dispatcher


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dispatcher, dependency_health, status_writer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.002)
    monkeypatch.setattr(status_writer, "TICK_SECONDS", 0.001)
