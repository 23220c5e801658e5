"""Settings of the operator, read from the environment."""

from __future__ import annotations

import secrets
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from taskflow_core.settings import ComponentSettings

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _own_namespace() -> str:
    try:
        return _POD_NAMESPACE.read_text().strip()
    except OSError:
        return "taskflow-system"


class OperatorSettings(ComponentSettings):
    """The operator itself, besides its Redis, database and logs."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_", frozen=True)

    token_key: SecretStr = Field(min_length=32)
    """Secret from which the token of each attempt is derived. Keep it over restarts, or events of attempts in flight
    are rejected as forged."""
    leader_election: bool = True
    """Act only while holding the Lease `taskflow-operator`; turn it off only for a single operator in development."""
    leader_namespace: str = Field(
        default_factory=_own_namespace, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63
    )
    """Namespace of the Lease. Default: the pod's own, outside a cluster `taskflow-system`."""
    leader_identity: str = Field(
        default_factory=lambda: f"{socket.gethostname()}_{secrets.token_hex(4)}", min_length=1, max_length=253
    )
    """Identity in the Lease. With the name of the pod, a restarted container continues with its own Lease at once
    instead of waiting until it expires. No two processes may share an identity. Default: the host name and a random
    part."""
    namespaces: frozenset[str] = frozenset()
    """A shard of the cluster: the only namespaces whose Tasks and WorkerPools this operator handles, such as
    `["team-a"]`. It needs no rights in others. Empty means all."""
    namespaces_left_out: frozenset[str] = frozenset()
    """The shard of all other namespaces: those that another operator handles. Each shard needs its own Redis and
    Lease."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    """Address of /livez, /readyz and /metrics."""
    health_port: int = Field(default=8081, ge=1, le=65535)
    """Port of /livez, /readyz and /metrics."""
    worker_image: str = Field(default_factory=lambda: f"taskflow-worker:{version('taskflow-operator')}")
    """Image of worker pods whose pool sets none. Default: `taskflow-worker` of the operator's own version."""
    lease_seconds: int = Field(default=15, ge=2, le=600)
    """How long a silent worker keeps its attempts."""
    max_lost_workers: int = Field(default=3, ge=1, le=10)
    """A Task ends as `PoisonTask` when this many different workers in a row died while they ran it, whatever its
    `maxAttempts`. An item of an array: when it was alone in its chunk and took down this many processes in a row."""
    resync_seconds: int = Field(default=60, ge=1, le=3600)
    """How often all open Tasks are listed and compared with the ledger. The interval grows up to 5 times if a list
    takes more than 1/20 of it."""
    status_writes_per_second: int = Field(default=200, ge=1, le=10000)
    """Limit on status writes, which protects the API server."""
    namespace_weights: dict[str, Annotated[int, Field(ge=1, le=1000)]] = Field(default_factory=dict)
    """Weights of namespaces in fair queues, such as `{"billing": 4}`. The default is 1."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Time to live of finished Tasks that set none. Unset keeps them until somebody deletes them."""
    finished_tasks_per_namespace: int | None = Field(default=None, ge=1)
    """Finished Tasks that a namespace keeps; the oldest are deleted first. Unset is without a limit."""
    run_once_days: int | None = Field(default=None, ge=1, le=36500)
    """How long it is remembered that a Task with `rerun: UnlessSucceeded` or `Never` ran, counted from its end or from
    the last time it was created again. After that it runs again. Unset is for ever; a row takes about 300 bytes and its
    result."""
    quiet_seconds: float = Field(default=1.0, ge=0, le=60)
    """Pending, Queued and Running are written only if they last longer than this. An end is written at once."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.namespaces and self.namespaces_left_out:
            raise ValueError(
                "namespaces and namespaces_left_out are both set: name those of this shard, or those of the others"
            )
        return self

    def cares_for(self, namespace: str) -> bool:
        """Whether the namespace is in this operator's shard."""
        return namespace in self.namespaces if self.namespaces else namespace not in self.namespaces_left_out

    def weight(self, namespace: str) -> int:
        """Weight of a namespace in fair queues."""
        return self.namespace_weights.get(namespace, 1)
