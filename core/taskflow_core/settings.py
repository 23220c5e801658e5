"""Settings that several components compose. Read once in a component's `__main__`, passed down, never read again.

Every value comes from the environment or from a file of a mounted Secret, so that no secret stands in an argument or a
file of ours.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from taskflow_core import service_urls
from taskflow_core.secret_files import SecretFiles

UNUSABLE = (ValidationError, SettingsError)
"""What reading settings raises; see `explain`."""


def _checked(check: Callable[[str], str]) -> AfterValidator:
    def checked(url: SecretStr) -> SecretStr:
        found = url.get_secret_value()
        usable = check(found)
        # The same object: that of a file reads it again.
        return url if usable == found else SecretStr(usable)

    return AfterValidator(checked)


RedisUrl = Annotated[SecretStr, _checked(service_urls.redis_url)]
"""URL of a Redis, whose certificate is verified if it has one."""
HttpEndpoint = Annotated[str, AfterValidator(service_urls.http_endpoint)]
"""http(s)://host:port, or empty."""


def _certificates(text: str) -> str:
    try:
        if text:
            ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("expected certificates in PEM format") from None
    return text


Certificates = Annotated[str, AfterValidator(_certificates)]
"""Certificates of authorities in PEM format, the text itself; empty for none."""


class ComponentSettings(BaseSettings):
    """Settings of a component, from the environment and from the files of `TASKFLOW_SECRETS_DIR`, which win."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where values come from, the first first."""
        return init_settings, SecretFiles(settings_cls), env_settings


class RedisSettings(ComponentSettings):
    """The broker's Redis: queues, ledger, claims, leases, event stream. Not for caches: it must never evict."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_REDIS_", frozen=True)

    url: RedisUrl
    """redis:// or rediss:// URL with user, password and database. With rediss:// the certificate and the host name are
    always verified, by the system's authorities; `?ssl_ca_certs=/path` adds those in a file. With Redis Sentinel:
    `redis+sentinel://user:password@sentinel:26379,sentinel2:26379/name/database`, or rediss+sentinel://."""
    ca: Certificates = ""
    """Certificates in PEM format, the text itself, of further authorities for every rediss:// URL of the component."""

    @property
    def tls(self) -> dict[str, Any]:
        """Options of the connections, by redis-py's names, which kombu's are too; empty without TLS."""
        if not urlsplit(self.url.get_secret_value()).scheme.startswith("rediss"):
            return {}
        # Said, and not left to defaults: kombu's own is not to verify.
        options: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        return options | {"ssl_ca_data": self.ca} if self.ca else options


class CacheSettings(ComponentSettings):
    """Answers that the REST API keeps. The operator and the API need the same one: the former says what changed."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_CACHE_", frozen=True)

    url: RedisUrl | None = None
    """URL as of the broker's Redis: a database or an instance beside it, or the same. Unset: no answer is kept."""


class DatabaseSettings(ComponentSettings):
    """The history database."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_DATABASE_", frozen=True)

    url: Annotated[SecretStr, _checked(service_urls.database_url)]
    """SQLAlchemy URL, `postgresql+psycopg://user:password@host:port/database`. What follows `?` are options of libpq,
    such as `sslmode=verify-full`, which trusts the public authorities if there is no `sslrootcert`."""
    ca: Certificates = ""
    """Certificates in PEM format, the text itself, of further authorities. With them, the certificate and the host name
    of the server are always verified."""
    ensure_schema: bool = False
    """The operator makes the schema again when the database has lost it. Needs the rights of the migrations."""


class StorageSettings(ComponentSettings):
    """The object store: any server that speaks S3."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_S3_", frozen=True)

    endpoint: HttpEndpoint = Field(min_length=1)
    """http(s)://host:port, without a path."""
    bucket: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:_-]{0,61}[A-Za-z0-9])?$")
    """Exists already."""
    access_key: SecretStr = Field(min_length=1)
    """May read, write and list in the bucket."""
    secret_key: SecretStr = Field(min_length=1)
    """Belongs to the access key."""
    session_token: SecretStr | None = None
    """Belongs to a temporary access key; unset for one that lasts."""
    public_endpoint: HttpEndpoint = ""
    """http(s)://host:port by which clients outside reach it, for the links that the API gives; empty is `endpoint`."""
    region: str = "us-east-1"
    """Signed into each request; most servers other than AWS take any."""
    ca: Certificates = ""
    """Certificates in PEM format, the text itself, of further authorities for https."""


class LogSettings(ComponentSettings):
    """How a component logs."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_LOG_", frozen=True)

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Less severe lines are left out."""
    format: Literal["json", "text"] = "json"
    """`json` for machines, one object a line; `text` for a person at a terminal."""


def explain(error: ValidationError | SettingsError) -> list[str]:
    """Unusable settings in words, one line each, with the variable's name and never its value."""
    if isinstance(error, SettingsError):
        # Of the library, or of `SecretFiles`; the values are in its cause alone.
        return [str(error)]
    prefix = _prefixes().get(error.title)
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        first, *rest = [*map(str, problem["loc"]), ""]
        name = f"{error.title}: {first}" if prefix is None else f"{prefix}{first.upper()}"
        field = ".".join((name.rstrip("_: "), *rest[:-1]))
        said = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {said}; it is read from the environment, see its documentation")
    return lines


def _prefixes() -> dict[str, str]:
    """Of the variables of each class of settings, by its name."""
    return {each.__name__: each.model_config.get("env_prefix", "") for each in ComponentSettings.__subclasses__()}
