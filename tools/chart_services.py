"""Values of the chart for services: external services and development services."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A level of values.yaml. Unknown keys are refused, so a typing error is reported."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", use_attribute_docstrings=True
    )


class Image(Model):
    """A TaskFlow image."""

    repository: str
    """Repository, without the registry in `global.imageRegistry`."""
    tag: str = ""
    """Tag. Empty: the chart's `appVersion`."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Digest, `sha256:...`; takes precedence over the tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the node pulls the image."""


class ServiceImage(Model):
    """A third-party image."""

    image: str
    """Reference of the image."""
    resources: dict[str, Any]
    """Requests and limits."""


class Egress(Model):
    """Where the service is, for `networkPolicy.enabled`."""

    to: list[dict[str, Any]] = []
    """Peers, as in a NetworkPolicy, e.g. `[{ipBlock: {cidr: 10.20.0.7/32}}]`. Required with `networkPolicy.enabled`."""
    ports: list[int]
    """Its ports."""


class ExternalDatabase(Model):
    """PostgreSQL 14 or newer."""

    existing_secret: str = ""
    """Secret with the URL. Required without `devServices`."""
    key: str = "database-url"
    """Key in the Secret. Its value is `postgresql+psycopg://user:password@host:port/database`, if needed with
    `?sslmode=verify-full`."""
    ca_key: str = "database-ca"
    """Key in the Secret with further authorities (PEM), by which the server is then always verified."""


class ExternalRedis(Model):
    """Redis 7 or newer that never evicts (`maxmemory-policy noeviction`)."""

    existing_secret: str = ""
    """Secret with the URL. Required without `devServices`."""
    key: str = "redis-url"
    """Key in the Secret. Its value is `redis://user:password@host:port/0`, or `rediss://` for TLS, or with Sentinels
    `redis+sentinel://user:password@host:port,host:port/name/0`. If the user is `taskflow-operator`, the provisioner
    makes it."""
    api_key: str = "redis-api-url"
    """Key in the Secret with the same URL for the API's read-only user, `taskflow-api`. Without it the API reports no
    queue positions."""
    egress: Egress = Egress(ports=[6379, 6380])
    """Where workers reach it, and its Sentinels."""
    ca_key: str = "redis-ca"
    """Key in the Secret with further authorities (PEM) by which `rediss://` is verified, also for `cacheRedis`. Without
    it: the well-known authorities."""


class CacheRedis(Model):
    """A separate Redis for the API's counters (rate limits, password attempts) and its cached answers."""

    existing_secret: str = ""
    """Secret with the URL. Empty: the broker's Redis, with separate keys."""
    key: str = "redis-url"
    """Key in the Secret. Its value is `redis://user:password@host:port/0`, or `rediss://` for TLS."""


class ExternalS3(Model):
    """Any S3-compatible server."""

    egress: Egress = Egress(ports=[443, 9000])
    """Where workers reach it."""
    endpoint: str = Field(default="", pattern=r"^(https?://[^/]+)?$")
    """`http(s)://host:port`, without a path. Required without `devServices`."""
    public_endpoint: str = Field(default="", pattern=r"^(https?://[^/]+)?$")
    """Endpoint for clients outside the cluster, used in the links that the API signs. Empty: `endpoint`."""
    bucket: str = "taskflow"
    """Existing bucket."""
    region: str = "us-east-1"
    """Region that is used to sign requests."""
    existing_secret: str = ""
    """Secret with the credentials. Required without `devServices`."""
    access_key_key: str = "s3-access-key"
    """Key in the Secret whose value is the API's access key. If it is `taskflow-api`, the provisioner makes that user
    of MinIO."""
    secret_key_key: str = "s3-secret-key"  # noqa: S105 - the name of a key, not a secret
    """Key in the Secret whose value is the secret key."""
    ca_key: str = "s3-ca"
    """Key in the Secret with further authorities (PEM) by which `https://` is verified. Without it: the well-known
    authorities."""


class Persistence(Model):
    """Volumes of the development services."""

    enabled: bool | Literal["auto"] = "auto"
    """`auto`: if the cluster has a default StorageClass, or `storageClass` is set, or Helm has no access to the cluster
    (`helm template`, Argo CD); an upgrade changes nothing. `false`: the data is lost when the pod is deleted."""
    size: str = "2Gi"
    """Size of each volume."""
    storage_class: str = ""
    """Storage class. Empty: the cluster's default."""


def _small(memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": memory}}


class DevServices(Model):
    """PostgreSQL, Redis and MinIO of this chart: one pod each, no backup, no TLS. For evaluation only."""

    enabled: bool = False
    """Install them instead of using `externalDatabase`, `externalRedis` and `externalS3`."""
    persistence: Persistence = Persistence()
    """Volumes."""
    postgresql: ServiceImage = ServiceImage(image="postgres:17", resources=_small("512Mi"))
    """PostgreSQL."""
    redis: ServiceImage = ServiceImage(image="redis:8", resources=_small("512Mi"))
    """Redis."""
    minio: Image = Image(repository="taskflow-minio")
    """MinIO, built from the Dockerfile's target `minio`."""
    minio_resources: dict[str, Any] = _small("1Gi")
    """Requests and limits of MinIO."""


class Webhooks(Model):
    """Webhooks that report the end of Tasks: endpoints in the API, and a notifier that calls them."""

    enabled: bool = False
    """Enable webhooks."""
    existing_secret: str = ""
    """Secret with the key that encrypts the endpoints' secrets. Required when enabled."""
    key: str = "webhooks-key"
    """Key in the Secret. Its value is a Fernet key, or several separated by commas, of which the first encrypts."""
    replicas: int = Field(default=1, ge=1, le=20)
    """Number of notifiers."""
    allow_http: bool = False
    """Also allow URLs without TLS."""
    ports: list[int] = [443, 8443]
    """Allowed ports of URLs."""
    allowed: list[str] = []
    """Addresses, networks (CIDR) and host names that may be called although they are not public."""
    keep_days: int = Field(default=30, ge=1, le=3650)
    """How many days finished deliveries are kept."""
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
    """Egress of notifiers, besides DNS and the database, as in a NetworkPolicy; with `networkPolicy.enabled`."""
    database_egress: list[dict[str, Any]] = []
    """Egress of notifiers to your database, as in a NetworkPolicy; required with `networkPolicy.enabled`. Each rule has
    to say `to`."""
