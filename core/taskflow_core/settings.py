"""Settings that several components compose. Read once in a component's `__main__`, passed down, never read again.

Every value comes from the environment, so that no secret stands in an argument or a file of ours.
"""

from __future__ import annotations

import ssl
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _verifying(url: SecretStr) -> SecretStr:
    """Refuse a URL that asks for less than a verified certificate of the right name.

    Raises:
        ValueError: it does; the message has no part of the URL that may be secret.
    """
    for name, value in parse_qsl(urlsplit(url.get_secret_value()).query, keep_blank_values=True):
        if name == "ssl_cert_reqs" and value != "required":
            raise ValueError("ssl_cert_reqs may only be 'required': the certificate of Redis is always verified")
        if name == "ssl_check_hostname" and value.lower() != "true":
            raise ValueError("ssl_check_hostname may only be 'true': the host name of Redis is always verified")
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_verifying)]
"""URL of a Redis, whose certificate is verified if it has one."""


def _certificates(text: str) -> str:
    try:
        if text:
            ssl.create_default_context(cadata=text)
    except ssl.SSLError as error:
        raise ValueError("expected certificates in PEM format") from error
    return text


class RedisSettings(BaseSettings):
    """The broker's Redis: queues, ledger, claims, leases, event stream. Not for caches: it must never evict."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_REDIS_", frozen=True)

    url: RedisUrl
    """redis:// or rediss:// URL with user, password and database. With rediss:// the certificate and the host name are
    always verified, by the system's authorities; `?ssl_ca_certs=/path` adds those in a file."""
    ca: Annotated[str, AfterValidator(_certificates)] = ""
    """Certificates in PEM format, the text itself, of further authorities for every rediss:// URL of the component."""

    @property
    def tls(self) -> dict[str, Any]:
        """Options of the connections, by redis-py's names, which kombu's are too; empty without TLS."""
        if urlsplit(self.url.get_secret_value()).scheme != "rediss":
            return {}
        # Said, and not left to defaults: kombu's own is not to verify.
        options: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        return options | {"ssl_ca_data": self.ca} if self.ca else options


class CacheSettings(BaseSettings):
    """Answers that the REST API keeps. The operator and the API need the same one: the former says what changed."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_CACHE_", frozen=True)

    url: RedisUrl | None = None
    """redis:// or rediss:// URL, a database or an instance beside the broker's, or the broker's. Unset: no answer is
    kept."""


class DatabaseSettings(BaseSettings):
    """The history database."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_DATABASE_", frozen=True)

    url: SecretStr
    """SQLAlchemy URL, `postgresql+psycopg://user:password@host:port/database`."""
    ensure_schema: bool = False
    """The operator makes the schema again when the database has lost it. Needs the rights of the migrations."""


class StorageSettings(BaseSettings):
    """The object store: any server that speaks S3."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_S3_", frozen=True)

    endpoint: str
    """http(s)://host:port, without a path."""
    bucket: str
    """Exists already."""
    access_key: SecretStr
    """May read, write and list in the bucket."""
    secret_key: SecretStr
    """Belongs to the access key."""
    session_token: SecretStr | None = None
    """Belongs to a temporary access key; unset for one that lasts."""
    public_endpoint: str = ""
    """http(s)://host:port by which clients outside reach it, for the links that the API gives; empty is `endpoint`."""
    region: str = "us-east-1"
    """Signed into each request; most servers other than AWS take any."""


class LogSettings(BaseSettings):
    """How a component logs."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_LOG_", frozen=True)

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Less severe lines are left out."""
    format: Literal["json", "text"] = "json"
    """`json` for machines, one object a line; `text` for a person at a terminal."""


def explain(error: ValidationError) -> list[str]:
    """Unusable settings in words, one line each, with the setting's name and never its value."""
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(map(str, problem["loc"]))
        lines.append(
            f"{error.title}: {field}: {problem['msg']}; it is read from the environment, see its documentation"
        )
    return lines
