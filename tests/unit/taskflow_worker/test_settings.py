from __future__ import annotations

import pytest
from pydantic import ValidationError

from taskflow_core.domain.naming import keys_of
from taskflow_core.settings import RedisSettings, explain
from taskflow_worker.__main__ import main
from taskflow_worker.settings import WorkerSettings


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> WorkerSettings:
    for name, value in ({"namespace": "team-a", "queues": "default", "name": "pod-1"} | values).items():
        monkeypatch.setenv(f"TASKFLOW_WORKER_{name.upper()}", value)
    return WorkerSettings()


def problems(monkeypatch: pytest.MonkeyPatch, **values: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **values)
    return explain(caught.value)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, queues=" default, reports ,,", handlers="a.b,c")
    assert settings.queues == ("default", "reports")
    assert settings.handlers == ("a.b", "c")


def test_the_defaults_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch)
    assert (settings.concurrency, settings.handlers, settings.lease_seconds) == (1, (), 15)


def test_more_threads_than_processes_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, pool_kind="Threads", concurrency="256").concurrency == 256
    assert problems(monkeypatch, pool_kind="Prefork", concurrency="256")[0].startswith(
        "TASKFLOW_WORKER_CONCURRENCY: expected at most 64 in a pool of kind Prefork, found 256"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queues", ""),
        ("pool_kind", "gevent"),
        ("queues", " , "),
        ("concurrency", "0"),
        ("concurrency", "65"),
        ("concurrency", "257"),
        ("concurrency", "many"),
        ("name", "pod|1"),
        ("name", "pod 1"),
        ("name", "x" * 201),
        ("lease_seconds", "1"),
        ("drain_seconds", "-1"),
        ("patience_seconds", "86401"),
    ],
)
def test_an_unusable_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    (line,) = problems(monkeypatch, **{name: value})
    assert line.startswith(f"TASKFLOW_WORKER_{name.upper()}: ")
    assert "environment" in line


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as caught:
        WorkerSettings()
    assert {line.partition(":")[0] for line in explain(caught.value)} == {
        "TASKFLOW_WORKER_NAMESPACE",
        "TASKFLOW_WORKER_QUEUES",
    }


def test_a_secret_never_shows_in_an_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_REDIS_URL", "redis://:very-secret@host/0")
    settings = RedisSettings()
    assert "very-secret" not in repr(settings)
    (line,) = problems(monkeypatch, name="very|secret")
    assert "very|secret" not in line


def test_once_names_an_attempt_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys_of("team-a").once("3f1c2a7e-8d55", 2)
    assert read(monkeypatch, once=key).once == key
    for other in ("tf:ev", "tf:{team-a}:ev", "tf:once:3f1c2a7e-8d55:2", f"{key}:0"):
        (told,) = problems(monkeypatch, once=other)
        assert "once" in told


def test_once_without_the_attempt_serves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read(monkeypatch)
    given = {"REDIS_URL": "redis://none", "S3_ENDPOINT": "http://none", "S3_BUCKET": "b", "S3_ACCESS_KEY": "a"}
    for name, value in {**given, "S3_SECRET_KEY": "s"}.items():
        monkeypatch.setenv(f"TASKFLOW_{name}", value)
    for name in ("own_stdout", "setup_logging"):
        monkeypatch.setattr(f"taskflow_worker.__main__.{name}", lambda *_: None)
    monkeypatch.setattr("taskflow_worker.output.own_logging.set_apart", lambda: None)
    assert main(["--once"]) == 2
    assert "--once needs TASKFLOW_WORKER_ONCE" in capsys.readouterr().err
