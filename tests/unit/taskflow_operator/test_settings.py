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
        ("namespace_weights.team-a", '{"team-a": 0}'),
        ("quiet_seconds", "soon"),
    ],
)
def test_an_unusable_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TASKFLOW_TOKEN_KEY", KEY)
    monkeypatch.setenv(f"TASKFLOW_{name.partition('.')[0].upper()}", value)
    with pytest.raises(ValidationError) as caught:
        OperatorSettings()
    (line,) = explain(caught.value)
    first, dot, rest = name.partition(".")
    assert line.startswith(f"TASKFLOW_{first.upper()}{dot}{rest}: ")
    assert value not in line or value == "0"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        OperatorSettings()
    (line,) = explain(caught.value)
    assert line.startswith("TASKFLOW_TOKEN_KEY: Field required")


@pytest.mark.parametrize(
    ("given", "cared_for", "left"),
    [
        ({}, ["team-a", "team-b"], []),
        ({"NAMESPACES": '["team-a", "team-c"]'}, ["team-a", "team-c"], ["team-b", ""]),
        ({"NAMESPACES_LEFT_OUT": '["team-a"]'}, ["team-b", "team-c"], ["team-a"]),
    ],
)
def test_a_shard_is_some_namespaces_or_all_but_some(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], cared_for: list[str], left: list[str]
) -> None:
    monkeypatch.setenv("TASKFLOW_TOKEN_KEY", KEY)
    for name, value in given.items():
        monkeypatch.setenv(f"TASKFLOW_{name}", value)
    settings = OperatorSettings()
    assert all(settings.cares_for(namespace) for namespace in cared_for)
    assert not any(settings.cares_for(namespace) for namespace in left)


def test_a_shard_is_not_said_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_TOKEN_KEY", KEY)
    monkeypatch.setenv("TASKFLOW_NAMESPACES", '["team-a"]')
    monkeypatch.setenv("TASKFLOW_NAMESPACES_LEFT_OUT", '["team-b"]')
    with pytest.raises(ValidationError, match="name those of this shard, or those of the others"):
        OperatorSettings()


def test_a_namespace_has_one_share_unless_it_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_TOKEN_KEY", KEY)
    monkeypatch.setenv("TASKFLOW_NAMESPACE_WEIGHTS", '{"billing": 4}')
    settings = OperatorSettings()
    assert (settings.weight("billing"), settings.weight("team-a")) == (4, 1)
