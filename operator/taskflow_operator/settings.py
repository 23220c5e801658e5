from __future__ import annotations

import secrets
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _own_namespace() -> str:
    try:
        return _POD_NAMESPACE.read_text().strip()
    except OSError:
        return "taskflow-system"


class OperatorSettings(BaseSettings):
    """The operator itself, besides its Redis, database and logs."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_", frozen=True)

    token_key: SecretStr = Field(min_length=32)
    """Secret from which the token of each attempt is derived. Keep it over restarts, or what is in flight is not believed."""
    leader_election: bool = True
    """Act only while holding the Lease `taskflow-operator`; off is for a single operator in development."""
    leader_namespace: str = Field(
        default_factory=_own_namespace, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63
    )
    """Namespace of the Lease. Default: the pod's own, outside a cluster `taskflow-system`."""
    leader_identity: str = Field(
        default_factory=lambda: f"{socket.gethostname()}_{secrets.token_hex(4)}", min_length=1, max_length=253
    )
    """Name in the Lease. With the pod's name here, a container that is started again takes its own Lease back at once instead of
    waiting until it runs out; no two processes may share one. Default: the host's name and a random part."""
    namespaces: frozenset[str] = frozenset()
    """A shard of the cluster: the only namespaces whose Tasks and WorkerPools this operator cares for, such as `["team-a"]`; it needs
    no rights in others. Empty: all."""
    namespaces_left_out: frozenset[str] = frozenset()
    """The shard of all other namespaces: those that another operator cares for. Each shard needs a Redis and a Lease of its own."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    """Address of /livez, /readyz and /metrics."""
    health_port: int = Field(default=8081, ge=1, le=65535)
    """Port of /livez, /readyz and /metrics."""
    worker_image: str = Field(default_factory=lambda: f"taskflow-worker:{version('taskflow-operator')}")
    """Image of worker pods whose pool names none. Default: `taskflow-worker` of the operator's own version."""
    lease_seconds: int = Field(default=15, ge=2, le=600)
    """How long a silent worker keeps its attempts."""
    resync_seconds: int = Field(default=60, ge=1, le=3600)
    """How often all open Tasks are listed and held against the ledger; up to 5 times as long where that takes over 1/20 of it."""
    status_writes_per_second: int = Field(default=200, ge=1, le=10000)
    """Bound on status writes, for the sake of the API server."""
    namespace_weights: dict[str, Annotated[int, Field(ge=1, le=1000)]] = Field(default_factory=dict)
    """Shares of namespaces where they have to take turns, such as `{"billing": 4}`; a namespace that is not named has 1."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Time to live of finished Tasks that say none. Unset keeps them until somebody deletes them."""
    finished_tasks_per_namespace: int | None = Field(default=None, ge=1)
    """Finished Tasks that a namespace keeps; the oldest are deleted first. Unset is without a bound."""
    quiet_seconds: float = Field(default=1.0, ge=0, le=60)
    """Pending, Queued and Running are written only when they last longer than this; an end is written at once."""

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
        """Share of a namespace where several take turns."""
        return self.namespace_weights.get(namespace, 1)
