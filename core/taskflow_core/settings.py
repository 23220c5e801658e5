"""Settings that several components compose. Read once in a component's `__main__`, passed down, never read again.

Every value comes from the environment, so that no secret stands in an argument or a file of ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class RedisSettings(BaseSettings):
    """The broker's Redis: queues, ledger, claims, leases, event stream. Not for caches: it must never evict."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_REDIS_", frozen=True)

    url: SecretStr
    """redis:// or rediss:// URL with user, password and database."""


class CacheSettings(BaseSettings):
    """Answers that the REST API keeps. The operator and the API need the same one: the former says what changed."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_CACHE_", frozen=True)

    url: SecretStr | None = None
    """redis:// or rediss:// URL, a database or an instance beside the broker's, or the broker's. Unset: no answer is
    kept."""


class DatabaseSettings(BaseSettings):
    """The history database."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_DATABASE_", frozen=True)

    url: SecretStr
    """SQLAlchemy URL, `postgresql+psycopg://user:password@host:port/database`."""


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
