"""The components of a stack: what each needs, how it is started, how one sees that it is ready.

Pure but for the configuration files that `prepare` functions write. Secrets go into 0600 files or the environment of the
component, never into arguments: those are visible to every user of the machine.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskflow_core.broker import acl
from taskflow_local.cluster import SYSTEM_NAMESPACE
from taskflow_local.errors import LocalError
from taskflow_local.pki import NODE_CLIENT
from taskflow_local.state import Folder, Memory, write_private

BUCKET = "taskflow"
REGION = "us-east-1"
ALL = (
    "etcd", "kube-apiserver", "kube-controller-manager", "redis", "postgres", "minio", "node", "operator", "api",
)  # fmt: skip
OPERATOR_SETTINGS = (
    "TASKFLOW_LEASE_SECONDS", "TASKFLOW_RESYNC_SECONDS", "TASKFLOW_STATUS_WRITES_PER_SECOND", "TASKFLOW_LEADER_ELECTION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)  # fmt: skip
"""Settings that the operator gets from the environment of `taskflow-local up`, if they are set there."""
API_SETTINGS = (
    "TASKFLOW_API_AUDIENCES", "TASKFLOW_API_METRICS_PORT", "TASKFLOW_API_STREAMS_PER_CALLER", "TASKFLOW_API_STREAMS", "TASKFLOW_OIDC_ISSUER",
    "TASKFLOW_OIDC_AUDIENCE", "TASKFLOW_OIDC_USERNAME_CLAIM", "TASKFLOW_OIDC_USERNAME_PREFIX",
    "TASKFLOW_OIDC_GROUPS_CLAIM", "TASKFLOW_OIDC_GROUPS_PREFIX", "TASKFLOW_OIDC_CA_FILE", "TASKFLOW_REGISTER_ENABLED",
    "TASKFLOW_REGISTER_SIGNING_KEY", "TASKFLOW_REGISTER_SIGNING_KEY_FILE", "TASKFLOW_REGISTER_TOKEN_SECONDS",
    "TASKFLOW_LIMITS_CALLER_PER_MINUTE", "TASKFLOW_LIMITS_NAMESPACE_PER_MINUTE", "TASKFLOW_LIMITS_NAMESPACES",
    "TASKFLOW_LIMITS_KEY_PER_MINUTE", "TASKFLOW_LIMITS_KEYS",
)  # fmt: skip
"""Likewise the REST API."""
WEBHOOK_SETTINGS = (
    "TASKFLOW_WEBHOOKS_KEY", "TASKFLOW_WEBHOOKS_KEY_FILE", "TASKFLOW_WEBHOOKS_ALLOW_HTTP", "TASKFLOW_WEBHOOKS_PORTS",
    "TASKFLOW_WEBHOOKS_ALLOWED", "TASKFLOW_WEBHOOKS_CA_FILE", "TASKFLOW_WEBHOOKS_PARALLEL", "TASKFLOW_WEBHOOKS_KEEP_DAYS",
)  # fmt: skip
"""Likewise API and notifier, when there are webhooks."""
WEBHOOKS = "TASKFLOW_WEBHOOKS_ENABLED"
_HOST = "127.0.0.1"
# The API server's default is an hour; a stack should not lose its identities while a developer has lunch.
_MAX_TOKEN = "8760h"  # noqa: S105 - a duration


@dataclass(frozen=True)
class Place:
    """What a component's start is built from."""

    folder: Folder
    memory: Memory
    programs: Mapping[str, Path]
    user: str | None = None

    def port(self, name: str) -> str:
        """A chosen port, as text for an argument."""
        return str(self.memory.ports[name])


@dataclass(frozen=True)
class Component:
    """One process of a stack."""

    name: str
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    argv: Callable[[Place], Sequence[str]] = field(default=lambda _: ())
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15
    start_seconds: float = 60
    unprivileged: bool = False

    def comes_after(self) -> tuple[str, ...]:
        """Everything that should be ready before this one starts, where it is part of the stack."""
        return (*self.needs, *self.wants)


def _etcd(place: Place) -> Sequence[str]:
    client, peer = (f"http://{_HOST}:{place.port(name)}" for name in ("etcd", "etcd-peer"))
    return (
        str(place.programs["etcd"]), "--name=local", f"--data-dir={place.folder.data / 'etcd'}",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=local={peer}",
        # Development data: a power cut may cost the last writes, every write is several times faster.
        "--unsafe-no-fsync", "--log-level=warn",
    )  # fmt: skip


def _apiserver(place: Place) -> Sequence[str]:
    folder, pki = place.folder, place.folder.pki
    tokens = (
        (place.memory.admin_token, "admin", "system:masters"),
        (place.memory.controller_manager_token, "system:kube-controller-manager", ""),
    )
    lines = [f'{token},{user},{user},"{group}"' if group else f"{token},{user},{user}" for token, user, group in tokens]
    write_private(folder.conf / "tokens.csv", "\n".join(lines) + "\n")
    return (
        str(place.programs["kube-apiserver"]), f"--etcd-servers=http://{_HOST}:{place.port('etcd')}",
        f"--bind-address={_HOST}", f"--secure-port={place.port('kube-apiserver')}", f"--advertise-address={_HOST}",
        # Nothing inside this cluster has an address of its own that could reach the service `kubernetes`.
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={pki / 'server.crt'}", f"--tls-private-key-file={pki / 'server.key'}",
        f"--cert-dir={pki}",
        # For `kubectl logs`: the node serves them.
        f"--kubelet-client-certificate={pki / 'node-client.crt'}", f"--kubelet-client-key={pki / 'node-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}", "--kubelet-preferred-address-types=InternalIP",
        # For API servers behind this one, such as an adapter of metrics: who asks is said in headers.
        f"--proxy-client-cert-file={pki / 'node-client.crt'}", f"--proxy-client-key-file={pki / 'node-client.key'}",
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        f"--requestheader-allowed-names={NODE_CLIENT}", "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC",
        f"--token-auth-file={folder.conf / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'sa.key'}", f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--service-account-max-token-expiration={_MAX_TOKEN}", "--service-account-extend-token-expiration=false",
        "--profiling=false", *_audit(folder),
    )  # fmt: skip


def _audit(folder: Folder) -> Sequence[str]:
    policy = folder.conf / "audit-policy.yaml"
    return (f"--audit-policy-file={policy}", f"--audit-log-path={folder.logs / 'audit.log'}") if policy.exists() else ()


def _controller_manager(place: Place) -> Sequence[str]:
    pki = place.folder.pki
    return (
        str(place.programs["kube-controller-manager"]),
        f"--kubeconfig={place.folder.conf / 'kube-controller-manager.kubeconfig'}", f"--bind-address={_HOST}",
        f"--secure-port={place.port('kube-controller-manager')}", f"--tls-cert-file={pki / 'server.crt'}",
        f"--tls-private-key-file={pki / 'server.key'}", "--leader-elect=false", "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'sa.key'}", f"--root-ca-file={pki / 'ca.crt'}", "--profiling=false",
        # A HorizontalPodAutoscaler that one tries here answers within seconds: by default it waits 5 minutes to go down.
        "--horizontal-pod-autoscaler-sync-period=2s", "--horizontal-pod-autoscaler-downscale-stabilization=15s",
    )  # fmt: skip


def _redis(place: Place) -> Sequence[str]:
    data = place.folder.data / "redis"
    data.mkdir(exist_ok=True, mode=0o700)
    conf = place.folder.conf / "redis.conf"
    lines = (
        f"bind {_HOST}", f"port {place.port('redis')}", "protected-mode yes", "daemonize no", f"dir {_quoted(data)}",
        f"requirepass {place.memory.redis_password}", "appendonly yes", "appendfsync everysec", 'save ""',
        "maxmemory-policy noeviction",
    )  # fmt: skip
    write_private(conf, "\n".join((*lines, *_redis_users(place.memory))) + "\n")
    return (str(place.programs["redis-server"]), str(conf))


def _redis_users(memory: Memory) -> list[str]:
    """Known from the first moment on: a worker that comes back with Redis is not turned away."""
    users = {
        acl.OPERATOR: acl.operator_rules(memory.redis_operator_password),
        acl.API: acl.api_rules(memory.redis_api_password),
    }
    for name in memory.namespaces:
        users[acl.worker_user(name)] = acl.worker_rules(name, memory.worker(name).redis_password)
    return [f"user {user} {' '.join(rules)}" for user, rules in users.items()]


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _postgres(place: Place) -> Sequence[str]:
    settings = {
        "listen_addresses": _HOST, "port": place.port("postgres"),
        # TCP only: a socket path below a deep state folder would be longer than the 107 bytes the kernel allows.
        "unix_socket_directories": "", "password_encryption": "scram-sha-256",
    }  # fmt: skip
    options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    return (str(place.programs["postgres"]), "-D", str(place.folder.data / "postgres"), *options)


def _minio(place: Place) -> Sequence[str]:
    data = place.folder.data / "minio"
    data.mkdir(exist_ok=True, mode=0o700)
    certificates = place.folder.conf / "minio"
    address = f"{_HOST}:{place.port('minio')}"
    return (
        str(place.programs["minio"]),
        "server",
        "--quiet",
        "--address",
        address,
        "--certs-dir",
        str(certificates),
        str(data),
    )


def _versitygw(place: Place) -> Sequence[str]:
    data, sidecar = (place.folder.data / name for name in ("versitygw", "s3-metadata"))
    for each in (data, sidecar):
        each.mkdir(exist_ok=True, mode=0o700)
    # A sidecar folder for metadata, because not every file system takes extended attributes.
    return (
        str(place.programs["versitygw"]), "--port", f"{_HOST}:{place.port('versitygw')}", "--health", "/health",
        "--quiet", "posix", "--sidecar", str(sidecar), str(data),
    )  # fmt: skip


def _module(name: str, *arguments: str) -> Callable[[Place], Sequence[str]]:
    return lambda _: (sys.executable, "-m", name, *arguments)


def _node(place: Place) -> Sequence[str]:
    folder = place.folder
    return (
        sys.executable, "-m", "taskflow_local.node", "--pods", str(folder.pods), "--pki", str(folder.pki),
        "--port", place.port("node"),
    )  # fmt: skip


COMPONENTS = {
    component.name: component
    for component in (
        Component("etcd", programs=("etcd",), ports=("etcd", "etcd-peer"), argv=_etcd),
        Component(
            "kube-apiserver", needs=("etcd",), programs=("kube-apiserver",), ports=("kube-apiserver",), argv=_apiserver,
            start_seconds=120,
            # Without its etcd it does not end by itself; it keeps nothing, so nothing is lost when it is killed.
            stop_seconds=3,
        ),
        Component(
            "kube-controller-manager", needs=("kube-apiserver",), programs=("kube-controller-manager",),
            ports=("kube-controller-manager",), argv=_controller_manager,
        ),
        Component("redis", programs=("redis-server",), ports=("redis",), argv=_redis),
        # SIGINT is "fast shutdown": SIGTERM would wait for every client to leave.
        Component(
            "postgres", programs=("initdb", "postgres"), ports=("postgres",), argv=_postgres, stop_signal=signal.SIGINT,
            unprivileged=True,
        ),
        Component("minio", programs=("minio",), ports=("minio",), argv=_minio),
        Component("versitygw", programs=("versitygw",), ports=("versitygw",), argv=_versitygw),
        # It wants the services for its Pods: started again, they read the addresses anew.
        Component(
            "node", needs=("kube-apiserver",), wants=("redis", "minio", "versitygw"), ports=("node",), argv=_node, stop_seconds=45,
        ),
        Component(
            "operator", needs=("kube-apiserver",), wants=("redis", "postgres", "minio", "versitygw"),
            ports=("operator",), argv=_module("taskflow_operator"), stop_seconds=30,
        ),
        Component(
            "api", needs=("kube-apiserver",), wants=("redis", "postgres", "minio", "versitygw"), ports=("api",),
            argv=_module("taskflow_api"), stop_seconds=30,
        ),
        Component(
            "notifier", needs=("postgres",), ports=("notifier",), argv=_module("taskflow_api", "notifier"), stop_seconds=30,
        ),
    )
}  # fmt: skip


def in_order(names: Sequence[str]) -> list[Component]:
    """Sort components so that each comes after what it needs. Raises LocalError for an unknown or a lacking one."""
    unknown = [name for name in names if name not in COMPONENTS]
    if unknown:
        raise LocalError(f"unknown component {unknown[0]!r}: expected some of {', '.join(COMPONENTS)}")
    for name in names:
        lacking = [need for need in COMPONENTS[name].needs if need not in names]
        if lacking:
            raise LocalError(f"component {name} needs {lacking[0]}: add it to the components of this stack")
    return [component for name, component in COMPONENTS.items() if name in names]


def default_components(base: Mapping[str, str]) -> tuple[str, ...]:
    """What a stack consists of when nobody chooses: with a notifier where webhooks are wanted."""
    return (*ALL, "notifier") if _truth(base.get(WEBHOOKS, "")) else ALL


def _truth(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on", "y", "t")


def storage(components: Sequence[str]) -> str | None:
    """Say which component serves S3 in this stack."""
    return next((name for name in ("minio", "versitygw") if name in components), None)


def service_urls(memory: Memory) -> dict[str, str]:
    """The administrator's way to Redis, PostgreSQL and S3: to those the stack has."""
    found: dict[str, str] = {}
    if "redis" in memory.components:
        found["TASKFLOW_REDIS_URL"] = _redis_url(memory, "", memory.redis_password)
    if "postgres" in memory.components:
        login = f"taskflow:{memory.postgres_password}"
        found["TASKFLOW_DATABASE_URL"] = f"postgresql+psycopg://{login}@{_HOST}:{memory.ports['postgres']}/taskflow"
    if server := storage(memory.components):
        found |= {
            "TASKFLOW_S3_ENDPOINT": f"http://{_HOST}:{memory.ports[server]}",
            "TASKFLOW_S3_BUCKET": BUCKET,
            "TASKFLOW_S3_REGION": REGION,
            "TASKFLOW_S3_ACCESS_KEY": memory.s3_access_key,
            "TASKFLOW_S3_SECRET_KEY": memory.s3_secret_key,
        }
    return found


def _redis_url(memory: Memory, user: str, password: str) -> str:
    return f"redis://{user}:{password}@{_HOST}:{memory.ports['redis']}/0"


def worker_secret(memory: Memory, namespace: str) -> dict[str, str]:
    """What the workers of a namespace may know: Redis and S3 as users of their own, no database login.

    versitygw, which stands in for any other S3 server, knows one user only.
    """
    login, user = memory.worker(namespace), acl.worker_user(namespace)
    found = service_urls(memory)
    found.pop("TASKFLOW_DATABASE_URL", None)
    if "redis" in memory.components:
        found["TASKFLOW_REDIS_URL"] = _redis_url(memory, user, login.redis_password)
    if storage(memory.components) == "minio":
        found |= {"TASKFLOW_S3_ACCESS_KEY": user, "TASKFLOW_S3_SECRET_KEY": login.s3_secret_key}
    return found


def environment(component: str, memory: Memory, folder: Folder, base: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a component: a minimal base and what that component must know, nothing else."""
    found = {name: base[name] for name in ("PATH", "LANG", "TZ", "PYTHONPATH") if base.get(name)}
    found["HOME"] = str(folder.data)
    if component in ("minio", "versitygw"):
        names = (
            ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
            if component == "minio"
            else ("ROOT_ACCESS_KEY", "ROOT_SECRET_KEY")
        )
        found |= dict(zip(names, (memory.s3_access_key, memory.s3_secret_key), strict=True))
        found |= {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"} if component == "minio" else {"VGW_REGION": REGION}
    if component in ("operator", "api", "node"):
        found |= {"KUBECONFIG": str(folder.conf / f"{component}.kubeconfig"), "PYTHONUNBUFFERED": "1"}
    if component in ("operator", "api", "migrate", "notifier"):
        found |= service_urls(memory) | {"TASKFLOW_LOG_FORMAT": "text"}
        # The administrator's; they have users of their own.
        found.pop("TASKFLOW_REDIS_URL", None)
    if component in ("api", "notifier"):
        found |= _of_webhooks(memory, base)
    if component == "operator":
        if "redis" in memory.components:
            found["TASKFLOW_REDIS_URL"] = _redis_url(memory, acl.OPERATOR, memory.redis_operator_password)
            found["TASKFLOW_CACHE_URL"] = found["TASKFLOW_REDIS_URL"]
        found |= {name: base[name] for name in OPERATOR_SETTINGS if name in base}
        found |= {"TASKFLOW_TOKEN_KEY": memory.token_key, "TASKFLOW_HEALTH_HOST": _HOST}
        found |= {"TASKFLOW_HEALTH_PORT": str(memory.ports["operator"])}
        # There is one operator process in a stack, so one that is started again takes its own Lease back at once.
        found |= {"TASKFLOW_LEADER_IDENTITY": "local", "TASKFLOW_LEADER_NAMESPACE": SYSTEM_NAMESPACE}
    if component == "api":
        found |= {"TASKFLOW_API_HOST": _HOST, "TASKFLOW_API_PORT": str(memory.ports["api"])}
        found |= {name: base[name] for name in API_SETTINGS if name in base}
        if "redis" in memory.components:
            url = _redis_url(memory, acl.API, memory.redis_api_password)
            found |= {"TASKFLOW_API_BROKER_URL": url, "TASKFLOW_LIMITS_URL": url, "TASKFLOW_CACHE_URL": url}
    if component == "notifier":
        found = {name: value for name, value in found.items() if not name.startswith("TASKFLOW_S3_")}
        found |= {"PYTHONUNBUFFERED": "1", "TASKFLOW_WEBHOOKS_HEALTH_HOST": _HOST}
        found["TASKFLOW_WEBHOOKS_HEALTH_PORT"] = str(memory.ports["notifier"])
    return found


def _of_webhooks(memory: Memory, base: Mapping[str, str]) -> dict[str, str]:
    if "notifier" not in memory.components and not _truth(base.get(WEBHOOKS, "")):
        return {}
    found = {name: base[name] for name in WEBHOOK_SETTINGS if name in base} | {WEBHOOKS: "true"}
    if "TASKFLOW_WEBHOOKS_KEY_FILE" not in found:
        found.setdefault("TASKFLOW_WEBHOOKS_KEY", memory.webhooks_key)
    return found


def client_environment(memory: Memory, folder: Folder, base: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a client of this stack: only what the stack has; PATH when we brought kubectl."""
    found: dict[str, str] = {}
    if "kube-apiserver" in memory.components:
        found["KUBECONFIG"] = str(folder.kubeconfig)
    if (folder.bin / "kubectl").exists():
        found["PATH"] = f"{folder.bin}{os.pathsep}{base.get('PATH', os.defpath)}"
    if "api" in memory.components:
        found["TASKFLOW_API_URL"] = f"http://{_HOST}:{memory.ports['api']}"
    found |= service_urls(memory)
    if memory.client_token is not None:
        found["TASKFLOW_API_TOKEN"] = memory.client_token
    return found
