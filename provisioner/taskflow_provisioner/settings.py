"""Settings of the provisioner, read from the environment."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from taskflow_core.settings import ComponentSettings, HttpEndpoint, RedisUrl
from taskflow_provisioner.worker_secret import INSTALLATION


class ProvisionerSettings(ComponentSettings):
    """The provisioner. Its Redis and object store are those of the workers, with an administrator's login."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_PROVISIONER_", frozen=True)

    namespaces: frozenset[str] = frozenset()
    """Namespaces whose workers get logins without the label, such as `["team-a"]`."""
    namespaces_left_out: frozenset[str] = frozenset()
    """Namespaces that another installation serves, whatever their labels."""
    installation: str = Field(default=INSTALLATION, min_length=1, max_length=253)
    """Name of the installation. Provisioners of several installations in one cluster need different names, and leave
    each other's Secrets alone."""
    labelled: bool = True
    """Also serve every namespace with the label `taskflow.dev/workers=enabled`. Without it, the provisioner needs
    rights only in `namespaces`, and takes no login back."""
    s3_logins: Literal["minio", "sts", "shared"] = "minio"
    """What a namespace gets: a user of MinIO; a temporary key by AssumeRole with a session policy; or the key of the
    provisioner itself, which all share and with which each can read the objects of the others."""
    sts_endpoint: HttpEndpoint = ""
    """http(s)://host:port of the service for AssumeRole. Empty: the endpoint of the object store."""
    sts_role: str = ""
    """ARN of the role that workers assume; MinIO needs none."""
    sts_seconds: int = Field(default=43200, ge=900, le=604800)
    """Lifetime of a temporary key. After half of it, the login is rotated."""
    rotate_after_days: int = Field(default=0, ge=0, le=3650)
    """Age at which logins are rotated, each within the last tenth of it. 0: only on request."""
    grace_seconds: int = Field(default=3600, ge=1, le=604800)
    """How long the former login stays valid after a rotation. It has to be longer than a rollout of the pools, their
    `terminationGracePeriodSeconds`, and the longest Task with `isolation: Pod`."""
    check_seconds: float = Field(default=5.0, ge=0.1, le=3600)
    """How often the users of Redis are compared with what they should be."""
    resync_seconds: float = Field(default=60.0, ge=0.1, le=3600)
    """How often namespaces, Secrets and the keys of the object store are compared. Changes of a label are noticed at
    once."""
    operator_redis_url: RedisUrl | None = None
    """The operator's Redis URL. If its user is `taskflow-operator`, the provisioner keeps that user too."""
    api_redis_url: RedisUrl | None = None
    """The REST API's Redis URL. If its user is `taskflow-api`, the provisioner keeps that user too."""
    api_s3_access_key: str = ""
    """The REST API's access key. If it is `taskflow-api`, the provisioner keeps that user of MinIO too, with a policy
    that can neither copy nor change rights."""
    api_s3_secret_key: SecretStr | None = None
    """Belongs to it."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    """Address of /livez, /readyz and /metrics."""
    health_port: int = Field(default=8083, ge=1, le=65535)
    """Port of /livez, /readyz and /metrics."""

    @model_validator(mode="after")
    def _grace_fits(self) -> Self:
        if self.s3_logins == "sts" and self.grace_seconds > self.sts_seconds / 2:
            raise ValueError(
                f"grace_seconds: expected at most half of sts_seconds ({self.sts_seconds // 2}), "
                f"found {self.grace_seconds}: a temporary key has to outlive the rollout to the next"
            )
        if 0 < self.rotate_after_days * 86400 <= self.grace_seconds:
            raise ValueError(f"rotate_after_days: expected more than grace_seconds, found {self.rotate_after_days}")
        return self

    @property
    def rotate_after(self) -> timedelta | None:
        """The age as a duration; None if there is no schedule."""
        return timedelta(days=self.rotate_after_days) if self.rotate_after_days else None
