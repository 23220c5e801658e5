"""Every setting of every component that is a URL of a service is checked when it is read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from taskflow_api.settings import ApiSettings, LimitSettings
from taskflow_core.settings import (
    CacheSettings,
    ComponentSettings,
    DatabaseSettings,
    RedisSettings,
    StorageSettings,
    explain,
)
from taskflow_provisioner.settings import ProvisionerSettings

CLASSES: tuple[type[ComponentSettings], ...] = (
    ApiSettings,
    CacheSettings,
    DatabaseSettings,
    LimitSettings,
    ProvisionerSettings,
    RedisSettings,
    StorageSettings,
)
URLS = [(owner, name) for owner in CLASSES for name in owner.model_fields if name.endswith(("url", "endpoint"))]


def test_no_class_with_a_url_is_left_out() -> None:
    others = set(ComponentSettings.__subclasses__()) - set(CLASSES)
    assert [name for each in others for name in each.model_fields if name.endswith(("url", "endpoint"))] == []
    assert len(URLS) == 10


@pytest.mark.parametrize(("owner", "name"), URLS)
@pytest.mark.parametrize(
    "url", ["redis://u:se/cret@h:1/0", "postgresql+psycopg://u:se/cret@h/d", "https://u:se/cret@h"]
)
def test_a_malformed_one_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, owner: type[ComponentSettings], name: str, url: str
) -> None:
    variable = f"{owner.model_config.get('env_prefix')}{name}".upper()
    monkeypatch.setenv(variable, url)
    with pytest.raises(ValidationError) as caught:
        owner()
    (line,) = (line for line in explain(caught.value) if line.startswith(f"{variable}: expected "))
    assert "cret" not in line
