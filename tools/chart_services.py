"""The part of the chart's values that is about services: yours, or those to try TaskFlow with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A level of values.yaml: what is not named here is refused, so that a typing error is one."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", use_attribute_docstrings=True
    )


class Image(Model):
    """Where an image comes from."""

    repository: str
    """Without the registry of `global.imageRegistry`."""
    tag: str = ""
    """Empty takes the chart's `appVersion`."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """`sha256:...`; wins over the tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the node asks the registry."""


class ServiceImage(Model):
    """An image of somebody else, whole."""

    image: str
    """Reference of the image."""
    resources: dict[str, Any]
    """Requests and limits."""


class ExternalDatabase(Model):
    """PostgreSQL 14 or newer."""

    existing_secret: str = ""
    """Secret with the URL. Required without `devServices`."""
    key: str = "database-url"
    """Holds `postgresql+psycopg://user:password@host:port/database`, with `?sslmode=verify-full` as you need it."""


class ExternalRedis(Model):
    """Redis 7 or newer that never evicts (`maxmemory-policy noeviction`)."""

    existing_secret: str = ""
    """Secret with the URL. Required without `devServices`."""
    key: str = "redis-url"
    """Holds `redis://user:password@host:port/0`, or `rediss://` for TLS."""
    api_key: str = "redis-api-url"
    """Holds the same for the API's user, who only reads (docs/security.md). Without it nobody is told a place in a queue."""


class CacheRedis(Model):
    """Redis of its own for what the API counts (rate limits, passwords tried) and the answers that it keeps, so that they take nothing from the broker."""

    existing_secret: str = ""
    """Secret with the URL. Empty: they stand in the broker's Redis, under keys of their own."""
    key: str = "redis-url"
    """Holds `redis://user:password@host:port/0`, or `rediss://` for TLS."""


class ExternalS3(Model):
    """Any server that speaks S3."""

    endpoint: str = Field(default="", pattern=r"^(https?://[^/]+)?$")
    """`http(s)://host:port`, without a path. Required without `devServices`."""
    public_endpoint: str = Field(default="", pattern=r"^(https?://[^/]+)?$")
    """The same by which clients outside the cluster reach it, for the links that the API gives; empty is `endpoint`."""
    bucket: str = "taskflow"
    """It exists already."""
    region: str = "us-east-1"
    """Signed into each request."""
    existing_secret: str = ""
    """Secret with the keys. Required without `devServices`."""
    access_key_key: str = "s3-access-key"
    """Holds the access key."""
    secret_key_key: str = "s3-secret-key"  # noqa: S105 - the name of a key
    """Holds the secret key."""


class Persistence(Model):
    """Volumes of the development services."""

    enabled: bool = True
    """Off: what they know is gone with their pod."""
    size: str = "2Gi"
    """Size of each."""
    storage_class: str = ""
    """Empty takes the cluster's default."""


def _small(memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": memory}}


class DevServices(Model):
    """PostgreSQL, Redis and MinIO of this chart: one pod each, no backup, no TLS. To try TaskFlow, not to rely on."""

    enabled: bool = False
    """Instead of `externalDatabase`, `externalRedis` and `externalS3`."""
    persistence: Persistence = Persistence()
    """Volumes."""
    postgresql: ServiceImage = ServiceImage(image="postgres:17", resources=_small("512Mi"))
    """PostgreSQL."""
    redis: ServiceImage = ServiceImage(image="redis:8", resources=_small("512Mi"))
    """Redis."""
    minio: Image = Image(repository="taskflow-minio")
    """MinIO, the Dockerfile's target of that name."""
    minio_resources: dict[str, Any] = _small("1Gi")
    """Requests and limits of MinIO."""


class Webhooks(Model):
    """Telling URLs of users that their Tasks ended: endpoints in the API, and a notifier that calls them."""

    enabled: bool = False
    """Have both."""
    existing_secret: str = ""
    """Secret with the key that encrypts the endpoints' secrets. Required when enabled."""
    key: str = "webhooks-key"
    """Its key in the Secret: a Fernet key, or several separated by commas, of which the first encrypts."""
    replicas: int = Field(default=1, ge=1, le=20)
    """Number of notifiers."""
    allow_http: bool = False
    """URLs without TLS too."""
    ports: list[int] = [443, 8443]
    """Ports that URLs may have."""
    allowed: list[str] = []
    """Addresses, networks (CIDR) and host names that may be called although they are not of the Internet."""
    keep_days: int = Field(default=30, ge=1, le=3650)
    """How long deliveries that ended are shown."""
    resources: dict[str, Any] = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}
    """Requests and limits of a notifier."""
    egress: list[dict[str, Any]] = [
        {
            "to": [
                {
                    "ipBlock": {
                        "cidr": "0.0.0.0/0",
                        "except": ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"],
                    }
                },
                {"ipBlock": {"cidr": "2000::/3"}},
            ]
        }
    ]
    """Where notifiers may connect to, beside DNS and the database, as in a NetworkPolicy; with `networkPolicy.enabled`."""
    database_egress: list[dict[str, Any]] = [{"ports": [{"protocol": "TCP", "port": 5432}]}]
    """How they reach the database, likewise."""
