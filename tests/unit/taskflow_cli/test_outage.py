from __future__ import annotations

import pytest

from taskflow_cli.errors import CliError, Exit
from taskflow_cli.outage import AWAY_SECONDS, Outage

AWAY = CliError("no answer", code=Exit.UNREACHABLE)


def test_an_outage_is_said_once_and_endured_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = [100.0]
    monkeypatch.setattr("taskflow_cli.outage.time.monotonic", lambda: now[0])
    found = Outage(said.append)
    found.failed(AWAY)
    now[0] += AWAY_SECONDS
    found.failed(AWAY)
    assert said == ["no answer; waiting for it"]
    found.over()
    now[0] += 1
    found.failed(AWAY)
    assert len(said) == 2
    now[0] += AWAY_SECONDS + 1
    with pytest.raises(CliError, match="no answer"):
        found.failed(AWAY)


def test_another_error_is_no_outage() -> None:
    with pytest.raises(CliError, match="forbidden"):
        Outage(lambda _: None).failed(CliError("forbidden"))
