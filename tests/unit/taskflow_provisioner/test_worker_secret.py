from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from taskflow_core.settings import StorageSettings
from taskflow_provisioner.logins import Login, S3Key
from taskflow_provisioner.worker_secret import (
    has_values,
    is_ours,
    kept_login,
    manifest,
    request_of,
    since_text,
    worker_values,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORAGE = StorageSettings(
    endpoint="https://s3", bucket="b", access_key=SecretStr("admin"), secret_key=SecretStr("administrator")
)
ADMIN = "rediss://admin:administrator@redis.example:6380/3?ssl_check_hostname=true"
PLAIN = Login("pass/word", S3Key("id", "key", "own"), NOW)
ROTATED = PLAIN.followed_by("next", S3Key("id2", "key2", "own"), "please", NOW, timedelta(hours=1))
TEMPORARY = Login("p", S3Key("id", "key", "temporary", "token", NOW + timedelta(hours=12)), NOW, replaces=True)


def made(login: Login) -> dict[str, Any]:
    return manifest("team-a", worker_values("team-a", ADMIN, STORAGE, login), login)


def test_workers_get_the_address_of_the_administrator_and_a_login_of_their_own() -> None:
    values = worker_values("team-a", ADMIN, STORAGE, PLAIN)
    assert values["TASKFLOW_REDIS_URL"] == (
        "rediss://taskflow-worker-team-a:pass%2Fword@redis.example:6380/3?ssl_check_hostname=true"
    )
    assert (values["TASKFLOW_S3_ACCESS_KEY"], values["TASKFLOW_S3_SECRET_KEY"]) == ("id", "key")
    assert "administrator" not in str(values)
    assert "TASKFLOW_S3_SESSION_TOKEN" not in values
    assert worker_values("team-a", ADMIN, STORAGE, TEMPORARY)["TASKFLOW_S3_SESSION_TOKEN"] == "token"
    assert "TASKFLOW_S3_CA" not in values
    private = STORAGE.model_copy(update={"ca": "certificates"})
    assert worker_values("team-a", ADMIN, private, PLAIN)["TASKFLOW_S3_CA"] == "certificates"
    behind = worker_values("team-a", "redis+sentinel://:administrator@one:26379,two:26379/main/0", STORAGE, PLAIN)
    assert behind["TASKFLOW_REDIS_URL"] == (
        "redis+sentinel://taskflow-worker-team-a:pass%2Fword@one:26379,two:26379/main/0"
    )


@pytest.mark.parametrize("login", [PLAIN, ROTATED, TEMPORARY, replace(PLAIN, served_request="x")])
def test_a_secret_keeps_a_login(login: Login) -> None:
    assert kept_login("team-a", made(login)) == login


@pytest.mark.parametrize(
    "change",
    [
        {"data": {}},
        {"data": None},
        {"data": {"TASKFLOW_REDIS_URL": "no base64"}},
        {"data": {"TASKFLOW_REDIS_URL": base64.b64encode(ADMIN.encode()).decode()}},
        {"metadata": {}},
        {"metadata": {"annotations": {"taskflow.dev/login-since": "yesterday"}}},
        {"metadata": {"annotations": {"taskflow.dev/login-since": "2026-01-01"}}},
    ],
)
def test_what_is_no_login_of_the_namespace_is_replaced(change: dict[str, Any]) -> None:
    assert kept_login("team-a", made(PLAIN) | change) is None


def test_the_login_of_another_namespace_is_none_of_this_one() -> None:
    assert kept_login("team-b", made(PLAIN)) is None


def test_a_broken_note_of_the_former_login_replaces_the_whole() -> None:
    digest = "0" * 64
    for note in (
        "{",
        "[]",
        "{}",
        '{"redisSha256": "\\ud800", "s3AccessKey": "a"}',
        '{"redisSha256": "x", "s3AccessKey": "a"}',
        f'{{"redisSha256": "{digest}", "s3AccessKey": ["a"]}}',
        f'{{"redisSha256": "{digest}", "s3AccessKey": "\\ud800"}}',
    ):
        secret = made(ROTATED)
        secret["metadata"]["annotations"]["taskflow.dev/former-login"] = note
        assert kept_login("team-a", secret) is None


def test_annotations_say_what_the_logins_are_and_no_secret() -> None:
    notes = made(ROTATED)["metadata"]["annotations"]
    assert notes["taskflow.dev/redis-login"] == "own"
    assert notes["taskflow.dev/s3-login"] == "own"
    assert notes["taskflow.dev/login-since"] == since_text(ROTATED) == "2026-01-01T00:00:00Z"
    assert notes["taskflow.dev/former-login-until"] == "2026-01-01T01:00:00Z"
    assert not [word for word in ("pass/word", "next", "key2") if word in str(notes)]


def test_only_the_secret_of_this_installations_provisioner_is_ours() -> None:
    secret = made(PLAIN)
    assert is_ours(secret, "taskflow")
    assert not is_ours(secret, "other")
    assert is_ours(manifest("team-a", {}, PLAIN, "other"), "other")
    assert not is_ours({"metadata": {}}, "taskflow")
    assert not is_ours({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}, "taskflow")
    # Of a former version of the chart.
    assert is_ours({"metadata": {"labels": {"app.kubernetes.io/managed-by": "taskflow-provision"}}}, "other")


def test_a_request_is_any_text() -> None:
    assert request_of(made(PLAIN)) == ""
    assert request_of({"metadata": {"annotations": {"taskflow.dev/rotate": "1"}}}) == "1"


def test_a_value_that_differs_is_noticed_and_another_key_is_not_ours_to_judge() -> None:
    secret, values = made(PLAIN), worker_values("team-a", ADMIN, STORAGE, PLAIN)
    assert has_values(secret, values)
    assert has_values({"data": secret["data"] | {"THEIRS": "eA=="}}, values)
    assert not has_values(secret, values | {"TASKFLOW_S3_ENDPOINT": "https://other"})
    assert not has_values({}, values)
