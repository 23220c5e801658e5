"""The command line of each component, and the configuration files that it names.

Secrets go into files of mode 0600 or the component's environment, never into arguments, which every user of the machine
can see.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskflow_core.broker import acl
from taskflow_local.environments import fixed_redis_users, login
from taskflow_local.pki import NODE_CLIENT
from taskflow_local.state import Folder, StackState, write_private

_HOST = "127.0.0.1"
# The API server's default is an hour: too short for a stack that runs for days.
_MAX_TOKEN = "8760h"  # noqa: S105 - a duration


@dataclass(frozen=True)
class CommandContext:
    """What a command line is built from."""

    folder: Folder
    state: StackState
    programs: Mapping[str, Path]
    user: str | None = None

    def port(self, name: str) -> str:
        """The port of a component, as text."""
        return str(self.state.ports[name])


def etcd(context: CommandContext) -> Sequence[str]:
    """One member, without fsync."""
    client, peer = (f"http://{_HOST}:{context.port(name)}" for name in ("etcd", "etcd-peer"))
    return (
        str(context.programs["etcd"]),
        "--name=local",
        f"--data-dir={context.folder.data / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        # Development data: a power cut may lose the last writes, but every write is several times faster.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )


def apiserver(context: CommandContext) -> Sequence[str]:
    """The API server. Writes the file of static tokens."""
    folder, pki = context.folder, context.folder.pki
    tokens = (
        (context.state.admin_token, "admin", "system:masters"),
        (context.state.controller_manager_token, "system:kube-controller-manager", ""),
    )
    lines = [f'{token},{user},{user},"{group}"' if group else f"{token},{user},{user}" for token, user, group in tokens]
    write_private(folder.conf / "tokens.csv", "\n".join(lines) + "\n")
    return (
        str(context.programs["kube-apiserver"]),
        f"--etcd-servers=http://{_HOST}:{context.port('etcd')}",
        f"--bind-address={_HOST}",
        f"--secure-port={context.port('kube-apiserver')}",
        f"--advertise-address={_HOST}",
        # Pods have no addresses of their own, so nothing could reach the service `kubernetes`.
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={pki / 'server.crt'}",
        f"--tls-private-key-file={pki / 'server.key'}",
        f"--cert-dir={pki}",
        # For `kubectl logs`: the node serves them.
        f"--kubelet-client-certificate={pki / 'node-client.crt'}",
        f"--kubelet-client-key={pki / 'node-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        # For API servers behind this one, such as a metrics adapter: headers name the user.
        f"--proxy-client-cert-file={pki / 'node-client.crt'}",
        f"--proxy-client-key-file={pki / 'node-client.key'}",
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        f"--requestheader-allowed-names={NODE_CLIENT}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder.conf / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'sa.key'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--service-account-max-token-expiration={_MAX_TOKEN}",
        "--service-account-extend-token-expiration=false",
        "--profiling=false",
        *_audit(folder),
    )


def _audit(folder: Folder) -> Sequence[str]:
    policy = folder.conf / "audit-policy.yaml"
    return (f"--audit-policy-file={policy}", f"--audit-log-path={folder.logs / 'audit.log'}") if policy.exists() else ()


def controller_manager(context: CommandContext) -> Sequence[str]:
    """The controllers of Kubernetes: Deployments, Jobs, garbage collection, autoscaling."""
    pki = context.folder.pki
    return (
        str(context.programs["kube-controller-manager"]),
        f"--kubeconfig={context.folder.conf / 'kube-controller-manager.kubeconfig'}",
        f"--bind-address={_HOST}",
        f"--secure-port={context.port('kube-controller-manager')}",
        f"--tls-cert-file={pki / 'server.crt'}",
        f"--tls-private-key-file={pki / 'server.key'}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'sa.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        "--profiling=false",
        # A HorizontalPodAutoscaler reacts within seconds here. By default it waits 5 minutes before it scales down.
        "--horizontal-pod-autoscaler-sync-period=2s",
        "--horizontal-pod-autoscaler-downscale-stabilization=15s",
    )


def redis(context: CommandContext) -> Sequence[str]:
    """Redis. Writes its configuration file with all users."""
    data = context.folder.data / "redis"
    data.mkdir(exist_ok=True, mode=0o700)
    conf = context.folder.conf / "redis.conf"
    lines = (
        f"bind {_HOST}",
        f"port {context.port('redis')}",
        "protected-mode yes",
        "daemonize no",
        f"dir {_quoted(data)}",
        f"requirepass {context.state.redis_password}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
    )
    write_private(conf, "\n".join((*lines, *_redis_users(context.state))) + "\n")
    return (str(context.programs["redis-server"]), str(conf))


def _redis_users(state: StackState) -> list[str]:
    """All users, from the start of Redis: a worker that reconnects after a restart is never refused. Those of workers
    are the provisioner's, if one runs.
    """
    users = fixed_redis_users(state)
    for name in () if state.has_provisioner else state.namespaces:
        found = login(state, name)
        users[acl.worker_user(name)] = found.redis_rules(name, found.since)
    return [f"user {user} {' '.join(rules)}" for user, rules in users.items()]


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def postgres(context: CommandContext) -> Sequence[str]:
    """PostgreSQL on TCP only."""
    settings = {
        "listen_addresses": _HOST,
        "port": context.port("postgres"),
        # TCP only: a socket path in a deep state folder may exceed the 107 bytes that the kernel allows.
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    return (str(context.programs["postgres"]), "-D", str(context.folder.data / "postgres"), *options)


def minio(context: CommandContext) -> Sequence[str]:
    """MinIO with one data folder."""
    data = context.folder.data / "minio"
    data.mkdir(exist_ok=True, mode=0o700)
    certificates = context.folder.conf / "minio"
    address = f"{_HOST}:{context.port('minio')}"
    return (
        str(context.programs["minio"]),
        "server",
        "--quiet",
        "--address",
        address,
        "--certs-dir",
        str(certificates),
        str(data),
    )


def versitygw(context: CommandContext) -> Sequence[str]:
    """versitygw, another S3 server, on a folder."""
    data, sidecar = (context.folder.data / name for name in ("versitygw", "s3-metadata"))
    for each in (data, sidecar):
        each.mkdir(exist_ok=True, mode=0o700)
    # A sidecar folder for metadata, because not every file system supports extended attributes.
    return (
        str(context.programs["versitygw"]),
        "--port",
        f"{_HOST}:{context.port('versitygw')}",
        "--health",
        "/health",
        "--quiet",
        "posix",
        "--sidecar",
        str(sidecar),
        str(data),
    )


def module(name: str, *arguments: str) -> Callable[[CommandContext], Sequence[str]]:
    """A Python module as a program."""
    return lambda _: (sys.executable, "-m", name, *arguments)


def node(context: CommandContext) -> Sequence[str]:
    """The Node that runs Pods as local processes."""
    folder = context.folder
    return (
        sys.executable,
        "-m",
        "taskflow_local.node",
        "--pods",
        str(folder.pods),
        "--pki",
        str(folder.pki),
        "--port",
        context.port("node"),
        "--declared",
        str(folder.handlers),
        "--handlers",
        *context.state.handlers,
    )
