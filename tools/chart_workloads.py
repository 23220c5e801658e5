"""What a user may set of the chart's workloads: the operator, the REST API and the image of workers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from chart_services import Image, Model

Objects = list[dict[str, Any]]
Words = dict[str, str]


class ServiceAccount(Model):
    """The identity of a component."""

    create: bool = True
    """Off: it exists already, under `name`."""
    name: str = ""
    """Empty takes the component's name."""
    annotations: Words = {}
    """E.g. for a cloud's workload identity."""


class Budget(Model):
    """How many pods may be away for maintenance."""

    enabled: bool = True
    """Takes effect from two replicas on: with one it would only block a node's drain."""
    max_unavailable: int | str = 1
    """Number or percentage."""


class Workload(Model):
    """What the operator and the API have in common."""

    image: Image
    """Its image."""
    replicas: int = Field(default=1, ge=1, le=20)
    """Number of pods."""
    resources: dict[str, Any]
    """Requests and limits."""
    service_account: ServiceAccount = ServiceAccount()
    """Its identity."""
    pdb: Budget = Budget()
    """PodDisruptionBudget."""
    extra_env: Objects = []
    """Further environment, as in a container; see docs/reference/settings.md."""
    pod_labels: Words = {}
    """Further labels of the pods."""
    pod_annotations: Words = {}
    """Annotations of the pods."""
    node_selector: Words = {"kubernetes.io/os": "linux"}
    """Nodes that will do."""
    tolerations: Objects = []
    """As in a pod."""
    affinity: dict[str, Any] = {}
    """As in a pod."""
    topology_spread: bool = True
    """Spread the pods over nodes where that is possible."""
    priority_class_name: str = ""
    """As in a pod."""


class TokenKey(Model):
    """The key of attempt tokens, at least 32 characters."""

    existing_secret: str = ""
    """Empty: a Secret with a random one is made at the first installation, and kept for good."""
    key: str = "token-key"
    """Its key in the Secret."""


class Operator(Workload):
    """The operator. From two replicas on, one leads and the others stand by."""

    image: Image = Image(repository="taskflow-operator")
    """Its image; migration and provisioning use it too."""
    resources: dict[str, Any] = {
        "requests": {"cpu": "100m", "memory": "192Mi"},
        "limits": {"memory": "512Mi"},
    }
    """Requests and limits."""
    token_key: TokenKey = TokenKey()
    """Key of attempt tokens."""


class Service(Model):
    """How the API is reached inside the cluster."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Kind of Service."""
    port: int = Field(default=80, ge=1, le=65535)
    """Port of the Service."""
    annotations: Words = {}
    """Annotations of the Service."""


class Ingress(Model):
    """How the API is reached from outside; not together with `httpRoute`."""

    enabled: bool = False
    """Make an Ingress."""
    class_name: str = ""
    """Empty takes the cluster's default class."""
    annotations: Words = {}
    """Annotations of the Ingress."""
    hosts: list[str] = []
    """Host names, all of whose paths lead to the API."""
    tls: Objects = []
    """As in an Ingress."""


class HttpRoute(Model):
    """The same by the Gateway API; not together with `ingress`."""

    enabled: bool = False
    """Make an HTTPRoute; its CRD has to be there."""
    parent_refs: Objects = []
    """Gateways, as in an HTTPRoute."""
    hostnames: list[str] = []
    """Host names."""


class Autoscaling(Model):
    """HorizontalPodAutoscaler; `replicas` is left to it then."""

    enabled: bool = False
    """Make one; the cluster needs a metrics server."""
    min_replicas: int = Field(default=2, ge=1)
    """At least."""
    max_replicas: int = Field(default=6, ge=1)
    """At most."""
    target_cpu_utilization_percentage: int = Field(default=70, ge=1, le=100, alias="targetCPUUtilizationPercentage")
    """Of the request."""


class Oidc(Model):
    """Tokens of an OIDC issuer, as kube-apiserver's `--oidc-*` options."""

    issuer: str = Field(default="", pattern=r"^(https://\S+)?$")
    """URL, exactly as in its tokens. Empty: none."""
    audience: str = ""
    """The client's id at the issuer, for which a token has to be made. Required with an issuer."""
    username_claim: str = Field(default="sub", min_length=1)
    """Claim that names the user."""
    username_prefix: str = ""
    """Put before the user's name. Empty: the issuer and `#`. `-`: nothing."""
    groups_claim: str = ""
    """Claim that names the groups. Empty: none."""
    groups_prefix: str = ""
    """Put before each group. Empty: the issuer and `#`. `-`: nothing."""
    ca_config_map: str = ""
    """ConfigMap whose `ca.crt` proves the issuer's server. Empty: the well-known authorities."""


class Register(Model):
    """Accounts with a password, for places without an identity provider."""

    enabled: bool = False
    """Anybody may make an account; it may do nothing until `python -m taskflow_api accounts bind`."""
    existing_secret: str = ""
    """Secret with the key that signs the accounts' tokens. Required when enabled."""
    key: str = "signing-key"
    """Its key in the Secret: at least 32 random bytes, as text."""
    token_seconds: int = Field(default=900, ge=60, le=3600)
    """How long a token is good."""


class Limits(Model):
    """Units a minute: a read costs 1, a list 2, a write 5, a batch 100. 0 is no limit. Counted in Redis by all pods together."""

    caller_per_minute: int = Field(default=3000, ge=0, le=10_000_000)
    """Of each caller."""
    namespace_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Of all callers together in each namespace."""
    namespaces: dict[str, int] = {}
    """Other numbers for some namespaces."""
    key_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Units of each API key, besides those of the identity that it stands for; 0 is without a limit."""
    keys: dict[str, int] = {}
    """Other numbers for some keys, by their ids."""


class Api(Workload):
    """The REST API."""

    image: Image = Image(repository="taskflow-api")
    """Its image."""
    replicas: int = Field(default=1, ge=1, le=100)
    """Number of pods."""
    resources: dict[str, Any] = {
        "requests": {"cpu": "50m", "memory": "160Mi"},
        "limits": {"memory": "512Mi"},
    }
    """Requests and limits."""
    audiences: list[str] = []
    """A token has to be made for one of them; empty means the API server's own audience."""
    limits: Limits = Limits()
    """How much callers may ask of it."""
    oidc: Oidc = Oidc()
    """OIDC."""
    register_: Register = Field(default=Register(), alias="register")
    """Accounts."""
    service: Service = Service()
    """Service of the API."""
    ingress: Ingress = Ingress()
    """Ingress."""
    http_route: HttpRoute = HttpRoute()
    """HTTPRoute."""
    autoscaling: Autoscaling = Autoscaling()
    """HorizontalPodAutoscaler."""


class Worker(Model):
    """Workers; their pods belong to WorkerPools, and those say how many."""

    image: Image = Image(repository="taskflow-worker")
    """Image of pools that name none."""
    egress: Objects = [{"ports": [{"protocol": "TCP", "port": port} for port in (443, 6379, 6380, 9000)]}]
    """Where their pods may connect to, beside DNS and the development services, as in a NetworkPolicy; with `networkPolicy.enabled`.
    The default is for any Redis and S3 at their usual ports: name the addresses of yours."""
