"""Settings of the API and the notifier, read from the environment by `__main__`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from taskflow_api.urls import safe_url
from taskflow_core.errors import Invalid
from taskflow_core.settings import ComponentSettings, RedisUrl

MIN_SIGNING_KEY_BYTES = 32


class ApiSettings(ComponentSettings):
    """Where the REST API listens, and which Kubernetes tokens it accepts."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_API_", frozen=True)

    host: str = "127.0.0.1"
    """Address of the REST API."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Port of the REST API."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of /metrics, which needs no token and therefore has a port of its own. Unset: metrics are not served."""
    audiences: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated audiences, one of which a Kubernetes token must have. Empty: the audience of the API server."""

    broker_url: RedisUrl | None = None
    """redis:// or rediss:// URL of the broker's Redis, with a read-only user (docs/security.md). Unset: answers have no
    queue position."""
    streams_per_caller: int = Field(default=100, ge=1, le=100_000)
    """Event streams and followed logs that one caller may have open in this process."""
    streams: int = Field(default=2000, ge=1, le=100_000)
    """Event streams and followed logs that all callers together may have open in this process."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated addresses or networks (CIDR) of proxies in front of the API. The client's address, by which
    passwords, registrations and connections are limited, is what they say in `X-Forwarded-For`. Empty: the header is
    ignored, and all clients of a proxy are one."""
    connections: int = Field(default=5000, ge=10, le=1_000_000)
    """Open connections in this process. When there is no room, one that only waits is closed for a new one."""
    connections_per_address: int = Field(default=500, ge=1, le=1_000_000)
    """Open connections of one address, or one IPv6 network (/64), in this process; not of trusted proxies."""
    header_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long the headers of a request may take to arrive (408)."""
    body_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long the next 16 KiB of a body may take, or its end (408)."""

    @field_validator("audiences", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ipaddress.ip_network(each)
        return value


class LimitSettings(ComponentSettings):
    """Rate limits of the REST API. A read costs 1 unit, a list 2, a write 5, a batch 100."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_LIMITS_", frozen=True)

    url: RedisUrl | None = None
    """redis:// or rediss:// URL of the Redis that counts requests, a database or an instance other than the broker's.
    Unset: each process counts on its own."""
    caller_per_minute: int = Field(default=3000, ge=0, le=10_000_000)
    """Units of each caller in all namespaces together. 0: no limit."""
    namespace_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Units of all callers together in each namespace. 0: no limit."""
    namespaces: Annotated[Mapping[str, int], NoDecode] = Field(default_factory=dict)
    """Exceptions for single namespaces: `team-a=6000,team-b=600`."""
    key_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Units of each API key, in addition to the limit of its ServiceAccount. 0: no limit."""
    keys: Annotated[Mapping[str, int], NoDecode] = Field(default_factory=dict)
    """Exceptions for single API keys, by id: `522e69802994be10=600`."""

    @field_validator("namespaces", "keys", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if any(not name or not number.isdecimal() for name, _, number in pairs):
            raise ValueError("expected NAME=UNITS, separated by commas")
        return {name: int(number) for name, _, number in pairs}


class OidcSettings(ComponentSettings):
    """The accepted OIDC issuer, and how its tokens map to identities, like the `--oidc-*` options of kube-apiserver."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_OIDC_", frozen=True)

    issuer: str = ""
    """URL of the issuer, exactly as in its tokens (`iss`). It must be https, or on this machine. Unset: no OIDC."""
    audience: str = ""
    """The audience of accepted tokens (`aud`): the client id at the issuer. Required with an issuer."""
    username_claim: str = Field(default="sub", min_length=1)
    """The claim with the user name. `email` is accepted only with `email_verified`."""
    username_prefix: str = ""
    """Prefix of user names. Unset: the issuer and `#`. `-`: no prefix."""
    groups_claim: str = ""
    """The claim with the groups, a string or a list. Unset: no groups."""
    groups_prefix: str = ""
    """Prefix of groups. Unset: the issuer and `#`. `-`: no prefix."""
    ca_file: str = ""
    """CA certificates (PEM) for the issuer's server. Unset: the public CAs."""

    def prefix(self, chosen: str) -> str:
        """The effective prefix of a prefix setting."""
        return "" if chosen == "-" else chosen or f"{self.issuer}#"

    @model_validator(mode="after")
    def _fits(self) -> OidcSettings:
        if not self.issuer:
            return self
        if not safe_url(self.issuer):
            raise ValueError("issuer: expected an https URL (http on this machine only)")
        if not self.audience:
            raise ValueError("audience: expected the client's id at the issuer, but it is not set")
        if any(prefix.startswith("system:") for prefix in (self.username_prefix, self.groups_prefix)):
            raise ValueError(
                "username_prefix, groups_prefix: `system:` is reserved for Kubernetes; choose another prefix"
            )
        return self


class RegisterSettings(ComponentSettings):
    """Accounts with a password, for installations without an identity provider."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_REGISTER_", frozen=True)

    enabled: bool = False
    """Accept registrations and issue tokens for accounts."""
    signing_key: SecretStr | None = None
    """The key that signs the tokens: at least 32 random bytes, as text. Whoever has it can impersonate any account. A
    new key invalidates all tokens."""
    signing_key_file: str = ""
    """A file with the signing key, as an alternative."""
    token_seconds: int = Field(default=900, ge=60, le=3600)
    """Lifetime of a token."""

    def key(self) -> bytes:
        """The signing key.

        Raises:
            Invalid: it is not set, set twice, not readable, or too short.
        """
        sources = "TASKFLOW_REGISTER_SIGNING_KEY or TASKFLOW_REGISTER_SIGNING_KEY_FILE"
        if (self.signing_key is None) == (not self.signing_key_file):
            raise Invalid(f"TASKFLOW_REGISTER_ENABLED needs one of {sources}")
        if self.signing_key is not None:
            found = self.signing_key.get_secret_value().encode()
        else:
            try:
                found = Path(self.signing_key_file).read_bytes().strip()
            except OSError as error:
                raise Invalid(f"TASKFLOW_REGISTER_SIGNING_KEY_FILE: {error.strerror}") from error
        if len(found) < MIN_SIGNING_KEY_BYTES:
            raise Invalid(
                f"{sources}: expected at least {MIN_SIGNING_KEY_BYTES} bytes, found {len(found)}; openssl rand -hex 32"
            )
        return found


class WebhookSettings(ComponentSettings):
    """Webhooks that report finished Tasks. The API stores the endpoints, the notifier calls them."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_WEBHOOKS_", frozen=True)

    enabled: bool = False
    """Allow users to create endpoints, and a notifier to run."""
    key: SecretStr | None = None
    """Fernet keys (32 bytes in URL-safe base64) that encrypt the endpoints' secrets in the database. Of several keys,
    separated by commas, the first encrypts and all decrypt. Required when enabled, the same for API and notifier."""
    key_file: str = ""
    """A file with the keys, as an alternative."""
    allow_http: bool = False
    """Allow http URLs, without TLS."""
    ports: Annotated[tuple[int, ...], NoDecode] = (443, 8443)
    """Allowed ports of URLs."""
    allowed: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses, networks (CIDR) and host names that are allowed although they are not public."""
    ca_file: str = ""
    """CA certificates (PEM) for the receivers. Unset: the public CAs."""
    parallel: int = Field(default=32, ge=1, le=1000)
    """Concurrent attempts of one notifier."""
    keep_days: int = Field(default=30, ge=1, le=3650)
    """How long finished deliveries are kept and can be replayed."""
    health_host: str = "127.0.0.1"
    """Address of the notifier's `/livez`, `/readyz` and `/metrics`."""
    health_port: int = Field(default=8082, ge=1, le=65535)
    """Port of the notifier's `/livez`, `/readyz` and `/metrics`."""

    @field_validator("allowed", "ports", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def keys(self) -> list[str]:
        """The keys, the encrypting one first; empty if none is set.

        Raises:
            Invalid: they are set twice, or the file is not readable.
        """
        if self.key is not None and self.key_file:
            raise Invalid("TASKFLOW_WEBHOOKS_KEY and TASKFLOW_WEBHOOKS_KEY_FILE are both set: choose one of them")
        found = "" if self.key is None else self.key.get_secret_value()
        if self.key_file:
            try:
                found = Path(self.key_file).read_text()
            except OSError as error:
                raise Invalid(f"TASKFLOW_WEBHOOKS_KEY_FILE: {error.strerror}") from error
        return [part.strip() for part in found.split(",") if part.strip()]
