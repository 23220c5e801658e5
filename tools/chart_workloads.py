"""Values of the chart for its workloads: the operator, the REST API and the worker image."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from chart_services import Image, Model

Objects = list[dict[str, Any]]
Words = dict[str, str]


class ServiceAccount(Model):
    """The identity of a component."""

    create: bool = True
    """Turn off to use the existing ServiceAccount `name`."""
    name: str = ""
    """Name. Empty: the component's name."""
    annotations: Words = {}
    """Annotations, e.g. for a cloud's workload identity."""


class Budget(Model):
    """How many pods may be unavailable during maintenance."""

    enabled: bool = True
    """Create it if there are at least two replicas. With one replica it would only block node drains."""
    max_unavailable: int | str = 1
    """Number or percentage of pods."""


class Workload(Model):
    """Values that the operator and the API have in common."""

    image: Image
    """Image."""
    replicas: int = Field(default=1, ge=1, le=20)
    """Number of pods."""
    resources: dict[str, Any]
    """Requests and limits."""
    service_account: ServiceAccount = ServiceAccount()
    """ServiceAccount."""
    pdb: Budget = Budget()
    """PodDisruptionBudget."""
    extra_env: Objects = []
    """Additional environment variables, as in a container; see docs/reference/settings.md."""
    pod_labels: Words = {}
    """Additional labels of the pods."""
    pod_annotations: Words = {}
    """Annotations of the pods."""
    node_selector: Words = {"kubernetes.io/os": "linux"}
    """Node selector, as in a pod."""
    tolerations: Objects = []
    """As in a pod spec."""
    affinity: dict[str, Any] = {}
    """As in a pod spec."""
    topology_spread: bool = True
    """Spread the pods over nodes if possible."""
    priority_class_name: str = ""
    """As in a pod spec."""


class TokenKey(Model):
    """The key of attempt tokens, at least 32 characters."""

    existing_secret: str = ""
    """Secret with the key. Empty: a random key is generated on the first installation and kept permanently."""
    key: str = "token-key"
    """Key in the Secret."""


class Operator(Workload):
    """The operator. With two or more replicas, one is the leader and the others are standbys."""

    image: Image = Image(repository="taskflow-operator")
    """Image, also of the provisioner, the migration and the Job that applies the pools."""
    resources: dict[str, Any] = {
        "requests": {"cpu": "100m", "memory": "192Mi"},
        "limits": {"memory": "512Mi"},
    }
    """Requests and limits."""
    token_key: TokenKey = TokenKey()
    """Key of attempt tokens."""


class Provisioner(Model):
    """The provisioner gives the workers of each namespace their own logins (docs/howto/logins.md)."""

    enabled: bool = True
    """Turn off to make the Secret `taskflow-worker` of each namespace yourself; `devServices` need it."""
    existing_secret: str = ""
    """Secret with an administrator's logins of Redis and the object store. Required without `devServices`. No other
    component uses it."""
    redis_key: str = "redis-admin-url"
    """Key in the Secret. Its value is the URL of a Redis user who may use `ACL` and `CLIENT KILL`."""
    access_key_key: str = "s3-admin-access-key"
    """Key in the Secret whose value is the access key."""
    secret_key_key: str = "s3-admin-secret-key"  # noqa: S105 - the name of a key, not a secret
    """Key in the Secret whose value is the secret key."""
    s3_logins: Literal["minio", "sts", "shared"] = "minio"
    """What a namespace gets: `minio`: a user of MinIO. `sts`: a temporary key by AssumeRole with a session policy.
    `shared`: the key in `existingSecret`, with which each namespace can read the objects of the others."""
    sts_endpoint: str = Field(default="", pattern=r"^(https?://[^/]+)?$")
    """`http(s)://host:port` of the service for AssumeRole. Empty: `externalS3.endpoint`."""
    sts_role: str = ""
    """ARN of the role that workers assume."""
    rotate_after_days: int = Field(default=0, ge=0, le=3650)
    """Age at which logins are rotated. 0: only on request."""
    grace_seconds: int = Field(default=3600, ge=1, le=604800)
    """How long the former login stays valid after a rotation: longer than a rollout of the pools and their grace
    period."""
    resources: dict[str, Any] = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
    """Requests and limits."""
    service_account: ServiceAccount = ServiceAccount()
    """ServiceAccount."""
    extra_env: Objects = []
    """Additional environment variables, as in a container; see docs/reference/settings.md."""


class Service(Model):
    """Access to the API inside the cluster."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service."""
    port: int = Field(default=80, ge=1, le=65535)
    """Port of the Service."""
    annotations: Words = {}
    """Annotations of the Service."""


class Ingress(Model):
    """Access to the API from outside the cluster; do not combine with `httpRoute`."""

    enabled: bool = False
    """Create an Ingress."""
    class_name: str = ""
    """Ingress class. Empty: the cluster's default class."""
    annotations: Words = {}
    """Annotations of the Ingress."""
    hosts: list[str] = []
    """Host names. All paths go to the API."""
    tls: Objects = []
    """As in an Ingress."""


class HttpRoute(Model):
    """Access from outside through the Gateway API; do not combine with `ingress`."""

    enabled: bool = False
    """Create an HTTPRoute; its CRD must be installed."""
    parent_refs: Objects = []
    """Gateways, as in an HTTPRoute."""
    hostnames: list[str] = []
    """Host names."""


class Autoscaling(Model):
    """HorizontalPodAutoscaler. It then owns `replicas`."""

    enabled: bool = False
    """Create it; the cluster needs a metrics server."""
    min_replicas: int = Field(default=2, ge=1)
    """Minimum number of pods."""
    max_replicas: int = Field(default=6, ge=1)
    """Maximum number of pods."""
    target_cpu_utilization_percentage: int = Field(default=70, ge=1, le=100, alias="targetCPUUtilizationPercentage")
    """Target CPU utilisation, in percent of the request."""


class Oidc(Model):
    """Authentication by tokens of an OIDC issuer, like kube-apiserver's `--oidc-*` options."""

    issuer: str = Field(default="", pattern=r"^(https://\S+)?$")
    """URL of the issuer, exactly as in its tokens. Empty: no issuer."""
    audience: str = ""
    """Client id at the issuer; tokens must have this audience. Required with an issuer."""
    username_claim: str = Field(default="sub", min_length=1)
    """Claim that names the user."""
    username_prefix: str = ""
    """Prefix of the user's name. Empty: the issuer and `#`. `-`: no prefix."""
    groups_claim: str = ""
    """Claim that names the groups. Empty: no groups."""
    groups_prefix: str = ""
    """Prefix of each group. Empty: the issuer and `#`. `-`: no prefix."""
    ca_config_map: str = ""
    """ConfigMap whose `ca.crt` verifies the issuer's server certificate. Empty: the well-known authorities."""


class Register(Model):
    """Accounts with a password, for installations without an identity provider."""

    enabled: bool = False
    """Let anyone create an account. An account has no rights until you run `python -m taskflow_api accounts bind`."""
    existing_secret: str = ""
    """Secret with the key that signs the accounts' tokens. Required when enabled."""
    key: str = "signing-key"
    """Key in the Secret. Its value is at least 32 random bytes, as text."""
    token_seconds: int = Field(default=900, ge=60, le=3600)
    """How many seconds a token is valid."""


class Limits(Model):
    """Units per minute, counted in Redis by all pods: a read costs 1, a list 2, a write 5, a batch 100. 0: no limit."""

    caller_per_minute: int = Field(default=3000, ge=0, le=10_000_000)
    """Limit of each caller."""
    namespace_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Limit of all callers together in each namespace."""
    namespaces: dict[str, int] = {}
    """Limits of individual namespaces, by name."""
    key_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Limit of each API key, in addition to the limit of its identity. 0 means no limit."""
    keys: dict[str, int] = {}
    """Limits of individual API keys, by id."""


class Api(Workload):
    """The REST API."""

    image: Image = Image(repository="taskflow-api")
    """Image."""
    replicas: int = Field(default=1, ge=1, le=100)
    """Number of pods."""
    resources: dict[str, Any] = {
        "requests": {"cpu": "50m", "memory": "160Mi"},
        "limits": {"memory": "512Mi"},
    }
    """Requests and limits."""
    audiences: list[str] = []
    """Accepted audiences of tokens. Empty: the API server's own audience."""
    trusted_proxies: list[str] = []
    """Addresses or networks (CIDR) of the proxies in front of the API, such as the Ingress controller's pods. Their
    `X-Forwarded-For` is believed. Empty: all clients of a proxy share the limits of one."""
    limits: Limits = Limits()
    """Rate limits."""
    oidc: Oidc = Oidc()
    """OIDC authentication."""
    register_: Register = Field(default=Register(), alias="register")
    """Registration of accounts."""
    service: Service = Service()
    """Service of the API."""
    ingress: Ingress = Ingress()
    """Ingress."""
    http_route: HttpRoute = HttpRoute()
    """HTTPRoute."""
    autoscaling: Autoscaling = Autoscaling()
    """HorizontalPodAutoscaler."""


class Worker(Model):
    """Workers. Their pods belong to WorkerPools, which set the number."""

    image: Image = Image(repository="taskflow-worker")
    """Default image of pools."""
    egress: Objects = []
    """Egress of worker pods, besides DNS, Redis and S3, as in a NetworkPolicy; with `networkPolicy.enabled`. What your
    handlers call. Each rule has to say `to`; a port anywhere is `to: [{ipBlock: {cidr: 0.0.0.0/0}}]`."""
