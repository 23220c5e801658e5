"""The values of the chart: the only source of values.yaml, values.schema.json and the table in its README."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from chart_services import CacheRedis, DevServices, ExternalDatabase, ExternalRedis, ExternalS3, Model, Webhooks
from chart_workloads import Api, Objects, Operator, Provisioner, Words, Worker


class Global(BaseModel):
    """Values shared with a parent chart, so unknown keys are accepted."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)

    image_registry: str = ""
    """Prefix for the repository of every TaskFlow image, e.g. `registry.example.com/team`."""


class Pool(Model):
    """A WorkerPool that is applied with each installation and upgrade."""

    enabled: bool = True
    """Turn off to create your own pools."""
    name: str = Field(default="main", pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)
    """Name of the pool."""
    namespace: str = "default"
    """One of `workerNamespaces`."""
    spec: dict[str, Any] = {"queues": ["default"], "concurrency": 2, "replicas": 1}
    """As in docs/reference/workerpool.md."""


class Migrations(Model):
    """Migrations of the history database."""

    mode: Literal["job", "hook", "none"] = "job"
    """`job`: a plain Job; the pods wait for it. `hook`: before installation and upgrade, for an existing database.
    `none`: you run the migrations."""
    active_deadline_seconds: int = Field(default=900, ge=60)
    """How long the Job may take."""
    resources: dict[str, Any] = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
    """Requests and limits, also for the Job that applies the pools."""


class Crds(Model):
    """The custom resource definitions."""

    enabled: bool = True
    """Turn off if you apply `crds/` yourself."""
    keep: bool = True
    """Keep the definitions, and all Tasks with them, when the chart is uninstalled."""


class Templates(Model):
    """Checks of Tasks against TaskTemplates."""

    enabled: bool = True
    """Create the admission policies by which the API server checks Tasks against the TaskTemplates of their namespace.
    They belong to the cluster: turn off in a second installation, as `crds.enabled`."""


class Rbac(Model):
    """Permissions."""

    create: bool = True
    """Create the roles of the components."""
    aggregate: bool = True
    """Extend the cluster's roles `view`, `edit` and `admin`."""
    admission_policies: bool = True
    """ValidatingAdmissionPolicies that limit what the roles are used for: the operator makes and changes only its own
    Deployments, Jobs and pods, and none in system namespaces; the API only pauses and drains pools."""


class Monitor(Model):
    """For the Prometheus operator, whose CRDs must be installed."""

    enabled: bool = False
    """Create the monitor."""
    labels: Words = {}
    """Labels by which your Prometheus selects it."""
    interval: str = "30s"
    """How often Prometheus scrapes the pods."""


class Rules(Model):
    """Alerts."""

    enabled: bool = False
    """Create a PrometheusRule."""
    labels: Words = {}
    """Labels by which your Prometheus selects it."""
    oldest_waiting_seconds: int = Field(default=300, ge=1)
    """Alert when a Task of a queue waits longer than this."""
    mirror_lag_seconds: int = Field(default=300, ge=1)
    """Alert when a reader of the event stream, such as the history in PostgreSQL, is further behind than this."""
    failure_ratio: float = Field(default=0.05, gt=0, le=1)
    """Alert when a larger share of the finished Tasks fails."""
    disabled: list[str] = []
    """Names of alerts to leave out."""
    runbooks: str = "docs/runbooks.md"
    """URL where you publish the runbooks. Each alert's `runbook_url` is this URL, `#` and the alert's name."""


class Dashboards(Model):
    """One ConfigMap for each dashboard, for Grafana's sidecar."""

    enabled: bool = False
    """Create the ConfigMaps."""
    labels: Words = {"grafana_dashboard": "1"}
    """Labels by which your sidecar selects them."""
    annotations: Words = {}
    """Annotations, e.g. the one from which your sidecar reads the folder."""


class Metrics(Model):
    """Metrics of the operator, at port 8081."""

    pod_monitor: Monitor = Monitor()
    """PodMonitor; do not combine it with `serviceMonitor`, or everything is counted twice."""
    service_monitor: Monitor = Monitor()
    """ServiceMonitor."""
    prometheus_rule: Rules = Rules()
    """PrometheusRule."""
    grafana_dashboards: Dashboards = Dashboards()
    """Dashboards."""


class SmokeTest(Model):
    """`helm test` runs a Task in the first pool."""

    keep: bool = False
    """Keep its ServiceAccount and Role installed, for other tools that run the test, such as `skaffold verify`."""


class Switch(Model):
    """On or off."""

    enabled: bool = False
    """Create the monitor."""


class Logging(Model):
    """Logs of the operator and the API."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""
    format: Literal["json", "text"] = "json"
    """`json` for machines, `text` for people."""


class Tracing(Model):
    """Spans of the operator."""

    endpoint: str = ""
    """OTLP endpoint (HTTP) that receives the spans. Empty: no spans."""


class Values(Model):
    """All values."""

    global_: Global = Field(default=Global(), alias="global")
    """Shared with other charts."""
    name_override: str = ""
    """Replaces the chart's name in the names of objects."""
    fullname_override: str = ""
    """Replaces release and chart name in the names of objects."""
    common_labels: Words = {}
    """Additional labels of every object."""
    image_pull_secrets: Objects = []
    """`[{name: ...}]`."""
    operator: Operator = Operator()
    """The operator."""
    api: Api = Api()
    """The REST API."""
    webhooks: Webhooks = Webhooks()
    """Webhooks."""
    provisioner: Provisioner = Provisioner()
    """The provisioner."""
    worker: Worker = Worker()
    """Workers."""
    watch_namespaces: list[str] = []
    """Namespaces to watch, with a Role in each instead of ClusterRoles. Empty: the whole cluster."""
    worker_namespaces: list[str] = ["default"]
    """Existing namespaces in which pools may run, besides those with the label `taskflow.dev/workers=enabled`. The
    provisioner gives each the Secret `taskflow-worker` with its own logins."""
    worker_pool: Pool = Pool()
    """A first pool."""
    migrations: Migrations = Migrations()
    """Migrations of the history database."""
    external_database: ExternalDatabase = ExternalDatabase()
    """Your PostgreSQL."""
    external_redis: ExternalRedis = ExternalRedis()
    """Your Redis."""
    cache_redis: CacheRedis = CacheRedis()
    """Redis for limits and cache."""
    external_s3: ExternalS3 = Field(default=ExternalS3(), alias="externalS3")
    """Your object store."""
    dev_services: DevServices = DevServices()
    """Development services, for evaluation only."""
    crds: Crds = Crds()
    """Custom resource definitions."""
    templates: Templates = Templates()
    """TaskTemplates."""
    rbac: Rbac = Rbac()
    """Permissions."""
    flow_schema: Switch = Switch(enabled=True)
    """FlowSchema: renewals of the operator's Lease do not queue behind its other requests to the API server."""
    network_policy: Switch = Switch()
    """NetworkPolicies: ingress of the operator, the API and the development services; egress of workers and
    notifiers. Off by default: they need a network that enforces them, its DNS in `kube-system`, and your addresses."""
    metrics: Metrics = Metrics()
    """Monitoring."""
    smoke_test: SmokeTest = SmokeTest()
    """`helm test`."""
    logging: Logging = Logging()
    """Logs."""
    tracing: Tracing = Tracing()
    """Tracing."""
    pod_security_context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    """Security context of every TaskFlow pod; the development services run as their own users."""
    container_security_context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    """Security context of every container."""
