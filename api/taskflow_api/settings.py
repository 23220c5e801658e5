from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class ApiSettings(BaseSettings):
    """Where the REST API listens and which tokens it takes."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_API_", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Likewise."""
    audiences: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated. A token has to be made for one of them; empty means the API server's own audience."""

    broker_url: SecretStr | None = None
    """redis:// or rediss:// URL of the broker's Redis, as a user that only reads (docs/security.md). Unset: nobody is told a place in a queue."""
    streams_per_caller: int = Field(default=100, ge=1, le=100_000)
    """Event streams and followed logs that one caller may have open at a time, in this process."""
    streams: int = Field(default=2000, ge=1, le=100_000)
    """Those of all callers."""

    @field_validator("audiences", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
