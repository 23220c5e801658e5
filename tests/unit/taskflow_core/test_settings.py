from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError
from redis.exceptions import ConnectionError as RedisConnectionError

from taskflow_core.redis_login import redis_login
from taskflow_core.settings import CacheSettings, DatabaseSettings, RedisSettings, StorageSettings, explain


@pytest.mark.parametrize(
    "query",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=CERT_NONE",
        "ssl_cert_reqs=optional",
        "ssl_cert_reqs=",
        "ssl_cert_reqs=required&ssl_cert_reqs=none",
        "ssl%5fcert_reqs=none",
        "ssl_check_hostname=false",
        "ssl_check_hostname=0",
    ],
)
@pytest.mark.parametrize(
    "where", ["rediss://user:hidden@redis:6380/0", "rediss+sentinel://user:hidden@one:26379,two:26379/main/0"]
)
@pytest.mark.parametrize("settings", [RedisSettings, CacheSettings])
def test_a_url_that_switches_verification_off_is_refused_without_being_shown(
    settings: type[RedisSettings | CacheSettings], where: str, query: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(url=SecretStr(f"{where}?{query}"))
    (line,) = explain(refused.value)
    assert line.startswith(settings.model_config["env_prefix"] + "URL: ")
    assert "always verified" in line
    assert "hidden" not in str(refused.value) + line


def test_only_rediss_has_tls_and_it_verifies() -> None:
    assert RedisSettings(url=SecretStr("redis://redis:6379/0")).tls == {}
    asked = RedisSettings(url=SecretStr("rediss://redis:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.crt"))
    assert asked.tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert RedisSettings(url=SecretStr("rediss+sentinel://one,two/main/0")).tls == asked.tls
    assert RedisSettings(url=SecretStr("redis+sentinel://one,two/main/0")).tls == {}


def test_an_authority_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValidationError, match="PEM"):
        RedisSettings(url=SecretStr("rediss://redis:6380/0"), ca="/etc/ca.crt")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_a_secret_of_a_file_is_read_each_time_and_wins_over_the_environment(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFLOW_REDIS_URL", "redis://:environment@redis/0")
    file = files / "TASKFLOW_REDIS_URL"
    file.write_text("redis://:first@redis/0\n")
    settings = RedisSettings()
    assert settings.url.get_secret_value() == "redis://:first@redis/0"
    file.write_text("redis://:second@redis/0\n")
    assert settings.url.get_secret_value() == "redis://:second@redis/0"
    assert "second" not in repr(settings)
    login = redis_login(settings.url)
    assert login is not None
    assert login.get_credentials() == ("second",)
    file.write_text("redis://user:p%2Fw@redis/0")
    assert login.get_credentials() == ("user", "p/w")


@pytest.mark.parametrize("content", ["redis://:th/ird@redis/0", "redis://redis/0", ""])
def test_a_file_that_became_unusable_is_an_outage_without_the_password(files: Path, content: str) -> None:
    file = files / "TASKFLOW_REDIS_URL"
    file.write_text("redis://:first@redis/0")
    login = redis_login(RedisSettings().url)
    assert login is not None
    file.write_text(content)
    with pytest.raises(RedisConnectionError, match="the URL of Redis") as caught:
        login.get_credentials()
    assert "ird" not in str(caught.value)
    file.unlink()
    with pytest.raises(RedisConnectionError, match="No such file"):
        login.get_credentials()


def test_every_secret_and_text_may_be_a_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_S3_ENDPOINT", "http://minio:9000")
    for name, value in {
        "BUCKET": "files",
        "ACCESS_KEY": "key",
        "SECRET_KEY": "hidden",
        "SESSION_TOKEN": "token",
    }.items():
        (files / f"TASKFLOW_S3_{name}").write_text(value)
    (files / "TASKFLOW_CACHE_URL").write_text("redis://:hidden@redis/0")
    settings = StorageSettings()
    assert (settings.bucket, settings.secret_key.get_secret_value()) == ("files", "hidden")
    assert settings.session_token is not None
    (files / "TASKFLOW_S3_SESSION_TOKEN").write_text("other")
    assert settings.session_token.get_secret_value() == "other"
    assert CacheSettings().url is not None
    assert "hidden" not in repr(settings)


def test_a_folder_or_a_file_that_cannot_be_read_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "TASKFLOW_REDIS_URL").write_bytes(b"redis://:\xff@redis/0")
    with pytest.raises(SettingsError) as caught:
        RedisSettings()
    assert explain(caught.value) == ["TASKFLOW_SECRETS_DIR: TASKFLOW_REDIS_URL: expected UTF-8"]
    monkeypatch.setenv("TASKFLOW_SECRETS_DIR", str(files / "none"))
    with pytest.raises(SettingsError) as caught:
        RedisSettings()
    assert explain(caught.value) == ["TASKFLOW_SECRETS_DIR: expected a folder, found none"]


def test_a_url_of_the_database_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError) as refused:
        DatabaseSettings(url=SecretStr("postgresql+psycopg://user:hid/den@host:5432/db"))
    (line,) = explain(refused.value)
    assert line.startswith("TASKFLOW_DATABASE_URL: expected postgresql+psycopg://user:password@host:port/database; ")
    assert "den" not in line.replace("percent-encode", "") + str(refused.value)
