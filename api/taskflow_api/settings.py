from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taskflow_api.urls import safe_url
from taskflow_core.errors import Invalid

MIN_SIGNING_KEY_BYTES = 32


class ApiSettings(BaseSettings):
    """Where the REST API listens and which tokens of Kubernetes it takes."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_API_", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Likewise."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of /metrics, which needs no token and so is not that of the API. Unset: there is none."""
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


class LimitSettings(BaseSettings):
    """How much callers of the REST API may ask of it. A read costs 1 unit, a list 2, a write 5, a batch 100."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_LIMITS_", frozen=True)

    url: SecretStr | None = None
    """redis:// or rediss:// URL of where requests are counted, a database or an instance beside the broker's. Unset: each process counts for itself."""
    caller_per_minute: int = Field(default=3000, ge=0, le=10_000_000)
    """Units of each caller, in all namespaces together; 0: no limit."""
    namespace_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Units of all callers together in each namespace; 0: no limit."""
    namespaces: Annotated[Mapping[str, int], NoDecode] = Field(default_factory=dict)
    """Other numbers for some namespaces, `team-a=6000,team-b=600`."""
    key_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Units of each API key, besides those of the identity that it stands for; 0: no limit."""
    keys: Annotated[Mapping[str, int], NoDecode] = Field(default_factory=dict)
    """Other numbers for some keys, by their ids, `522e69802994be10=600`."""

    @field_validator("namespaces", "keys", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if any(not name or not number.isdecimal() for name, _, number in pairs):
            raise ValueError("expected NAME=UNITS, separated by commas")
        return {name: int(number) for name, _, number in pairs}


class OidcSettings(BaseSettings):
    """Whose OIDC tokens the REST API takes, and which Kubernetes identity they mean; as kube-apiserver's `--oidc-*` options."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_OIDC_", frozen=True)

    issuer: str = ""
    """URL of the issuer, exactly as in its tokens (`iss`); https, but for one on this machine. Unset: no OIDC."""
    audience: str = ""
    """A token has to be made for it (`aud`): the client's id at the issuer. Required with an issuer."""
    username_claim: str = Field(default="sub", min_length=1)
    """Claim that names the user. `email` counts only with `email_verified`."""
    username_prefix: str = ""
    """Put before the user's name. Unset: the issuer and `#`. `-`: nothing."""
    groups_claim: str = ""
    """Claim that names the groups, a text or a list. Unset: none."""
    groups_prefix: str = ""
    """Put before each group. Unset: the issuer and `#`. `-`: nothing."""
    ca_file: str = ""
    """Certificates (PEM) that prove the issuer's server. Unset: the well-known ones."""

    def prefix(self, chosen: str) -> str:
        """What a prefix setting means."""
        return "" if chosen == "-" else chosen or f"{self.issuer}#"

    @model_validator(mode="after")
    def _fits(self) -> OidcSettings:
        if not self.issuer:
            return self
        if not safe_url(self.issuer):
            raise ValueError("issuer: expected an https URL (http on this machine only)")
        if not self.audience:
            raise ValueError("audience: expected the client's id at the issuer, found none")
        if any(prefix.startswith("system:") for prefix in (self.username_prefix, self.groups_prefix)):
            raise ValueError("username_prefix, groups_prefix: `system:` is Kubernetes' own, choose another")
        return self


class RegisterSettings(BaseSettings):
    """Accounts with a password, for places without an identity provider."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_REGISTER_", frozen=True)

    enabled: bool = False
    """Take new accounts and give tokens for them."""
    signing_key: SecretStr | None = None
    """Signs the tokens: at least 32 random bytes, as text. Whoever knows it can be any account. Changed, all tokens end."""
    signing_key_file: str = ""
    """A file with it, instead."""
    token_seconds: int = Field(default=900, ge=60, le=3600)
    """How long a token is good."""

    def key(self) -> bytes:
        """The signing key.

        Raises:
            Invalid: there is none, two, or it is too short.
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


class WebhookSettings(BaseSettings):
    """Telling URLs of users that their Tasks ended: the API keeps the endpoints, the notifier calls them."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_WEBHOOKS_", frozen=True)

    enabled: bool = False
    """Endpoints may be made, and a notifier may run."""
    key: SecretStr | None = None
    """Encrypts the endpoints' secrets in the database: 32 bytes in URL-safe base64 (a Fernet key). Several, separated by commas: the first encrypts, all decrypt. Required when enabled, the same for API and notifier."""
    key_file: str = ""
    """A file with it, instead."""
    allow_http: bool = False
    """URLs without TLS too."""
    ports: Annotated[tuple[int, ...], NoDecode] = (443, 8443)
    """Ports that URLs may have."""
    allowed: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses, networks (CIDR) and host names that may be called although they are not of the Internet."""
    ca_file: str = ""
    """Certificates (PEM) that prove the receivers. Unset: the well-known ones."""
    parallel: int = Field(default=32, ge=1, le=1000)
    """Attempts at a time, of one notifier."""
    keep_days: int = Field(default=30, ge=1, le=3650)
    """How long deliveries that ended are shown and may be replayed."""
    health_host: str = "127.0.0.1"
    """Address of the notifier's `/livez`, `/readyz` and `/metrics`."""
    health_port: int = Field(default=8082, ge=1, le=65535)
    """Likewise."""

    @field_validator("allowed", "ports", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def keys(self) -> list[str]:
        """The keys, the one that encrypts first; none when they are not set.

        Raises:
            Invalid: they are set twice, or the file cannot be read.
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
