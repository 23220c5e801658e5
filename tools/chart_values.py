"""What a user may set of the chart: the only source of values.yaml, values.schema.json and the table in its README."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from chart_services import CacheRedis, DevServices, ExternalDatabase, ExternalRedis, ExternalS3, Image, Model, Webhooks

Objects = list[dict[str, Any]]
Words = dict[str, str]


class Global(BaseModel):
    """Shared with a chart that has this one as a part, so others' keys are let through."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)

    image_registry: str = ""
    """Put before every repository of an image of TaskFlow, e.g. `registry.example.com/team`."""


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


class Pool(Model):
    """A WorkerPool that is applied with each installation and upgrade."""

    enabled: bool = True
    """Off: you make your own."""
    name: str = Field(default="main", pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)
    """Its name."""
    namespace: str = "default"
    """One of `workerNamespaces`."""
    spec: dict[str, Any] = {"queues": ["default"], "concurrency": 2, "replicas": 1}
    """As in docs/reference/workerpool.md."""


class Migrations(Model):
    """The schema of the history database."""

    mode: Literal["job", "hook", "none"] = "job"
    """`job`: a plain Job, pods wait for it. `hook`: before installation and upgrade, for a database that exists. `none`: by hand."""
    active_deadline_seconds: int = Field(default=900, ge=60)
    """How long the Job may take."""
    resources: dict[str, Any] = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
    """Requests and limits, of the provisioning Job too."""


class Crds(Model):
    """The resource definitions."""

    enabled: bool = True
    """Off: somebody else applies `crds/`."""
    keep: bool = True
    """Leave them, and with them all Tasks, when the chart is uninstalled."""


class Rbac(Model):
    """Permissions."""

    create: bool = True
    """Make the roles of the components."""
    aggregate: bool = True
    """Extend the cluster's roles `view`, `edit` and `admin`."""


class Monitor(Model):
    """For the Prometheus operator, whose CRDs have to be there."""

    enabled: bool = False
    """Make it."""
    labels: Words = {}
    """By which your Prometheus selects it."""
    interval: str = "30s"
    """How often it is read."""


class Rules(Model):
    """Alerts."""

    enabled: bool = False
    """Make a PrometheusRule."""
    labels: Words = {}
    """By which your Prometheus selects it."""
    oldest_waiting_seconds: int = Field(default=300, ge=1)
    """A queue whose longest waiting Task waits longer is reported."""
    mirror_lag_seconds: int = Field(default=300, ge=1)
    """Likewise for the history in PostgreSQL."""
    failure_ratio: float = Field(default=0.05, gt=0, le=1)
    """Part of the finished Tasks that may fail."""


class Metrics(Model):
    """Numbers of the operator, at port 8081."""

    pod_monitor: Monitor = Monitor()
    """PodMonitor; not together with `serviceMonitor`, or all is counted twice."""
    service_monitor: Monitor = Monitor()
    """ServiceMonitor."""
    prometheus_rule: Rules = Rules()
    """PrometheusRule."""


class Switch(Model):
    """On or off."""

    enabled: bool = False
    """Make it."""


class Logging(Model):
    """Logs of the operator and the API."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Less severe lines are left out."""
    format: Literal["json", "text"] = "json"
    """For machines or for people."""


class Tracing(Model):
    """Spans of the operator."""

    endpoint: str = ""
    """Where they go, by OTLP over HTTP. Empty: none."""


class Values(Model):
    """All of it."""

    global_: Global = Field(default=Global(), alias="global")
    """Shared with other charts."""
    name_override: str = ""
    """Instead of the chart's name in the names of objects."""
    fullname_override: str = ""
    """Instead of release and chart name."""
    common_labels: Words = {}
    """Further labels of every object."""
    image_pull_secrets: Objects = []
    """`[{name: ...}]`."""
    operator: Operator = Operator()
    """The operator."""
    api: Api = Api()
    """The REST API."""
    webhooks: Webhooks = Webhooks()
    """Webhooks."""
    worker: Worker = Worker()
    """Workers."""
    watch_namespaces: list[str] = []
    """The only namespaces whose Tasks and pools count, with a Role in each instead of ClusterRoles. Empty: the whole cluster."""
    worker_namespaces: list[str] = ["default"]
    """Existing namespaces whose pools may run: each gets the Secret `taskflow-worker` with the keys of Redis and S3."""
    worker_pool: Pool = Pool()
    """A first pool."""
    migrations: Migrations = Migrations()
    """Schema of the history."""
    external_database: ExternalDatabase = ExternalDatabase()
    """Your PostgreSQL."""
    external_redis: ExternalRedis = ExternalRedis()
    """Your Redis."""
    cache_redis: CacheRedis = CacheRedis()
    """Redis for limits and cache."""
    external_s3: ExternalS3 = Field(default=ExternalS3(), alias="externalS3")
    """Your object store."""
    dev_services: DevServices = DevServices()
    """Services to try TaskFlow with."""
    crds: Crds = Crds()
    """Resource definitions."""
    rbac: Rbac = Rbac()
    """Permissions."""
    flow_schema: Switch = Switch(enabled=True)
    """FlowSchema: renewals of the operator's Lease do not wait behind its other requests to the API server."""
    network_policy: Switch = Switch()
    """NetworkPolicies: who may reach the operator, the API and the development services."""
    metrics: Metrics = Metrics()
    """Monitoring."""
    logging: Logging = Logging()
    """Logs."""
    tracing: Tracing = Tracing()
    """Spans."""
    pod_security_context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    """Of every pod of TaskFlow; the development services have their own user."""
    container_security_context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    """Of every container."""
