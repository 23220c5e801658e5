from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from taskflow_core.settings import CacheSettings, RedisSettings, explain


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
@pytest.mark.parametrize("settings", [RedisSettings, CacheSettings])
def test_a_url_that_switches_verification_off_is_refused_without_being_shown(
    settings: type[RedisSettings | CacheSettings], query: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(url=SecretStr(f"rediss://user:hidden@redis:6380/0?{query}"))
    (line,) = explain(refused.value)
    assert "url" in line
    assert "always verified" in line
    assert "hidden" not in str(refused.value) + line


def test_only_rediss_has_tls_and_it_verifies() -> None:
    assert RedisSettings(url=SecretStr("redis://redis:6379/0")).tls == {}
    asked = RedisSettings(url=SecretStr("rediss://redis:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.crt"))
    assert asked.tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def test_an_authority_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValidationError, match="PEM"):
        RedisSettings(url=SecretStr("rediss://redis:6380/0"), ca="/etc/ca.crt")
