from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import SecretStr

from taskflow_core.settings import StorageSettings
from taskflow_provisioner.__main__ import main, s3_logins
from taskflow_provisioner.logins import S3Key
from taskflow_provisioner.s3_logins import MinioLogins, SharedLogin, TemporaryLogins
from taskflow_provisioner.settings import ProvisionerSettings

STORAGE = StorageSettings(
    endpoint="http://s3", bucket="b", access_key=SecretStr("admin"), secret_key=SecretStr("administrator")
)


def test_lacking_settings_are_named_and_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 2
    assert "RedisSettings: url" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "expected"), [("minio", MinioLogins), ("sts", TemporaryLogins), ("shared", SharedLogin)]
)
def test_the_kind_of_s3_keys_is_a_setting_and_the_administrators_is_shared_only_if_that_says_so(
    kind: str, expected: type
) -> None:
    logins = s3_logins(ProvisionerSettings.model_validate({"s3_logins": kind}), STORAGE)
    assert isinstance(logins, expected)
    administrator = S3Key("admin", "administrator", "shared")
    assert logins.fits(administrator) is (kind == "shared")


def test_the_default_is_no_schedule_and_an_hour_of_grace() -> None:
    settings = ProvisionerSettings()
    assert settings.s3_logins == "minio"
    assert settings.rotate_after is None
    assert timedelta(seconds=settings.grace_seconds) == timedelta(hours=1)
