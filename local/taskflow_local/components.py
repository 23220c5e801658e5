"""The components of a stack: what each one needs, how it is started and stopped."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from taskflow_local import commands
from taskflow_local.commands import CommandContext
from taskflow_local.environments import webhooks_wanted
from taskflow_local.errors import LocalError

ALL = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "redis",
    "postgres",
    "minio",
    "node",
    "operator",
    "api",
)


@dataclass(frozen=True)
class Component:
    """One process of a stack."""

    name: str
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    argv: Callable[[CommandContext], Sequence[str]] = field(default=lambda _: ())
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15
    start_seconds: float = 60
    unprivileged: bool = False
    scheme: str = "http"

    def address(self, port: int) -> str:
        """The address to show to a person."""
        return f"{self.scheme}://127.0.0.1:{port}"

    def comes_after(self) -> tuple[str, ...]:
        """The components that should be ready before this one starts, if they are part of the stack."""
        return (*self.needs, *self.wants)


COMPONENTS = {
    component.name: component
    for component in (
        Component("etcd", programs=("etcd",), ports=("etcd", "etcd-peer"), argv=commands.etcd),
        Component(
            "kube-apiserver",
            needs=("etcd",),
            programs=("kube-apiserver",),
            ports=("kube-apiserver",),
            argv=commands.apiserver,
            scheme="https",
            start_seconds=120,
            # Without etcd it does not stop by itself. It has no data of its own, so a kill loses nothing.
            stop_seconds=3,
        ),
        Component(
            "kube-controller-manager",
            needs=("kube-apiserver",),
            programs=("kube-controller-manager",),
            ports=("kube-controller-manager",),
            argv=commands.controller_manager,
            scheme="https",
        ),
        Component("redis", programs=("redis-server",), ports=("redis",), argv=commands.redis, scheme="redis"),
        # SIGINT is "fast shutdown". SIGTERM would wait for every client to disconnect.
        Component(
            "postgres",
            programs=("initdb", "postgres"),
            ports=("postgres",),
            argv=commands.postgres,
            stop_signal=signal.SIGINT,
            unprivileged=True,
            scheme="postgresql",
        ),
        Component("minio", programs=("minio",), ports=("minio",), argv=commands.minio),
        Component("versitygw", programs=("versitygw",), ports=("versitygw",), argv=commands.versitygw),
        # It wants the services for its Pods: after a restart they read the new addresses.
        Component(
            "node",
            needs=("kube-apiserver",),
            wants=("redis", "minio", "versitygw"),
            ports=("node",),
            argv=commands.node,
            scheme="https",
            stop_seconds=45,
        ),
        Component(
            "operator",
            needs=("kube-apiserver",),
            wants=("redis", "postgres", "minio", "versitygw"),
            ports=("operator",),
            argv=commands.module("taskflow_operator"),
            stop_seconds=30,
        ),
        Component(
            "api",
            needs=("kube-apiserver",),
            wants=("redis", "postgres", "minio", "versitygw"),
            ports=("api",),
            argv=commands.module("taskflow_api"),
            stop_seconds=30,
        ),
        Component(
            "provisioner",
            needs=("kube-apiserver", "redis"),
            wants=("minio", "versitygw"),
            ports=("provisioner",),
            argv=commands.module("taskflow_provisioner"),
        ),
        Component(
            "notifier",
            needs=("postgres",),
            ports=("notifier",),
            argv=commands.module("taskflow_api", "notifier"),
            stop_seconds=30,
        ),
    )
}


def in_order(names: Sequence[str]) -> list[Component]:
    """Sort components so that each follows what it needs. Raises LocalError for an unknown or missing component."""
    unknown = [name for name in names if name not in COMPONENTS]
    if unknown:
        raise LocalError(f"unknown component {unknown[0]!r}: expected some of {', '.join(COMPONENTS)}")
    for name in names:
        missing = [need for need in COMPONENTS[name].needs if need not in names]
        if missing:
            raise LocalError(f"component {name} needs {missing[0]}: add it to the components of this stack")
    return [component for name, component in COMPONENTS.items() if name in names]


def default_components(base: Mapping[str, str]) -> tuple[str, ...]:
    """The components of a stack by default. Includes the notifier if webhooks are enabled."""
    return (*ALL, "notifier") if webhooks_wanted(base) else ALL
