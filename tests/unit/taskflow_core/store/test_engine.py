from __future__ import annotations

from pathlib import Path

import certifi
import pytest
from pydantic import SecretStr

from taskflow_core.errors import Invalid
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store.engine import create_engine, engine_url

CA = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
CA = CA[CA.index("-----BEGIN") :]


def settings(query: str = "", ca: str = "") -> DatabaseSettings:
    return DatabaseSettings(url=SecretStr(f"postgresql+psycopg://u:hunter2@h/db{query}"), ca=ca)


@pytest.mark.parametrize("query", ["?sslmod=require", "?host=one:5432&host=two:hunter2"])
def test_options_that_libpq_does_not_know_are_refused_without_the_password(query: str) -> None:
    with pytest.raises(Invalid, match=r"TASKFLOW_DATABASE_URL: after '\?'") as caught:
        create_engine(settings(query), application_name="test")
    assert "hunter2" not in str(caught.value)


def test_verification_has_authorities_and_is_never_weaker_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert engine_url(settings()).query == {}
    assert engine_url(settings("?sslmode=require")).query == {"sslmode": "require"}
    public = engine_url(settings("?sslmode=verify-full")).query
    assert public == {"sslmode": "verify-full", "sslrootcert": certifi.where()}
    own = engine_url(settings("?sslmode=verify-ca&sslrootcert=/etc/ca.crt")).query
    assert own == {"sslmode": "verify-ca", "sslrootcert": "/etc/ca.crt"}
    private = engine_url(settings(ca=CA)).query
    assert private["sslmode"] == "verify-full"
    assert Path(str(private["sslrootcert"])).read_text().endswith(CA)


@pytest.mark.parametrize("query", ["?sslmode=require", "?sslmode=disable", "?sslrootcert=/etc/ca.crt"])
def test_authorities_that_would_be_ignored_are_refused(query: str) -> None:
    with pytest.raises(Invalid, match="TASKFLOW_DATABASE_CA"):
        engine_url(settings(query, CA))
