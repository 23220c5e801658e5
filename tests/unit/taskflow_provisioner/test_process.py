from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import SecretStr

from taskflow_core.settings import StorageSettings
from taskflow_provisioner.__main__ import main, s3_logins
from taskflow_provisioner.logins import S3Key
from taskflow_provisioner.s3_logins import MinioLogins, SharedLogin, TemporaryLogins, s3_users
from taskflow_provisioner.settings import ProvisionerSettings

STORAGE = StorageSettings(
    endpoint="http://s3", bucket="b", access_key=SecretStr("admin"), secret_key=SecretStr("administrator")
)


def test_lacking_settings_are_named_and_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 2
    assert "TASKFLOW_REDIS_URL: Field required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "expected"), [("minio", MinioLogins), ("sts", TemporaryLogins), ("shared", SharedLogin)]
)
def test_the_kind_of_s3_keys_is_a_setting_and_the_administrators_is_shared_only_if_that_says_so(
    kind: str, expected: type
) -> None:
    logins = s3_logins(ProvisionerSettings.model_validate({"s3_logins": kind}), STORAGE)
    assert isinstance(logins, expected)
    administrator = S3Key("admin", "administrator", "shared")
    assert logins.fits("team-a", administrator) is (kind == "shared")


def test_a_secret_that_names_the_user_of_another_namespace_changes_nothing_of_it() -> None:
    logins = MinioLogins(STORAGE)
    own, theirs = (S3Key(s3_users(name, "b")[0], "x" * 64, "own") for name in ("team-a", "team-b"))
    assert logins.fits("team-a", own)
    for key in (theirs, S3Key("taskflow-api", "x" * 64, "own"), S3Key("admin", "x" * 64, "own")):
        assert not logins.fits("team-a", key)
        # Nothing listens at the address of the store: it is not asked.
        assert not logins.mend("team-a", key)


def test_the_default_is_no_schedule_and_an_hour_of_grace() -> None:
    settings = ProvisionerSettings()
    assert settings.s3_logins == "minio"
    assert settings.rotate_after is None
    assert timedelta(seconds=settings.grace_seconds) == timedelta(hours=1)
