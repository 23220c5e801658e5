from __future__ import annotations

import pytest
from pydantic import ValidationError

from taskflow_core.settings import explain
from taskflow_operator.settings import OperatorSettings

KEY = "k" * 32


def test_only_the_key_of_the_tokens_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_TOKEN_KEY", KEY)
    settings = OperatorSettings()
    assert (settings.lease_seconds, settings.resync_seconds, settings.quiet_seconds) == (15, 60, 1.0)
    assert settings.worker_image.startswith("taskflow-worker:")
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_key", "short"),
        ("health_port", "0"),
        ("health_port", "65536"),
        ("lease_seconds", "1"),
        ("resync_seconds", "0"),
        ("status_writes_per_second", "0"),
        ("quiet_seconds", "-0.1"),
        ("quiet_seconds", "soon"),
    ],
)
def test_an_unusable_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TASKFLOW_TOKEN_KEY", KEY)
    monkeypatch.setenv(f"TASKFLOW_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        OperatorSettings()
    (line,) = explain(caught.value)
    assert line.startswith(f"OperatorSettings: {name}: ")
    assert value not in line or value == "0"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        OperatorSettings()
    (line,) = explain(caught.value)
    assert line.startswith("OperatorSettings: token_key: Field required")
