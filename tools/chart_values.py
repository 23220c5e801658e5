"""What a user may set of the chart: the only source of values.yaml, values.schema.json and the table in its README."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from chart_services import CacheRedis, DevServices, ExternalDatabase, ExternalRedis, ExternalS3, Model, Webhooks
from chart_workloads import Api, Objects, Operator, Words, Worker


class Global(BaseModel):
    """Shared with a chart that has this one as a part, so others' keys are let through."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)

    image_registry: str = ""
    """Put before every repository of an image of TaskFlow, e.g. `registry.example.com/team`."""


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
    disabled: list[str] = []
    """Alerts to leave out, by their names."""
    runbooks: str = "docs/runbooks.md"
    """What each alert's `runbook_url` begins with, before `#` and its name: where you publish that page."""


class Dashboards(Model):
    """For Grafana's sidecar, a ConfigMap for each."""

    enabled: bool = False
    """Make them."""
    labels: Words = {"grafana_dashboard": "1"}
    """By which your sidecar selects them."""
    annotations: Words = {}
    """E.g. the folder, by the name that your sidecar reads."""


class Metrics(Model):
    """Numbers of the operator, at port 8081."""

    pod_monitor: Monitor = Monitor()
    """PodMonitor; not together with `serviceMonitor`, or all is counted twice."""
    service_monitor: Monitor = Monitor()
    """ServiceMonitor."""
    prometheus_rule: Rules = Rules()
    """PrometheusRule."""
    grafana_dashboards: Dashboards = Dashboards()
    """Dashboards."""


class SmokeTest(Model):
    """What `helm test` runs: a Task in the first pool."""

    keep: bool = False
    """Its ServiceAccount and Role are part of the installation, for others who run it too, such as `skaffold verify`."""


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
    """NetworkPolicies: who may reach the operator, the API and the development services, and whom workers and notifiers may reach."""
    metrics: Metrics = Metrics()
    """Monitoring."""
    smoke_test: SmokeTest = SmokeTest()
    """`helm test`."""
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
