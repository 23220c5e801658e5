"""Settings of a worker, read from the environment."""

from __future__ import annotations

import socket
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from taskflow_core.domain.slots import PoolKind
from taskflow_core.settings import ComponentSettings


class WorkerSettings(ComponentSettings):
    """Settings of one worker. The operator sets them in the pods of a WorkerPool."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_WORKER_", frozen=True)

    namespace: str
    """Namespace of the Tasks that the worker runs."""
    pool: str = ""
    """The WorkerPool that the worker belongs to. Empty for a worker started by hand, which is never scaled."""
    queues: Annotated[tuple[str, ...], NoDecode] = Field(min_length=1)
    """Queues to serve, separated by commas."""
    once: str | None = Field(default=None, pattern=r"^tf:\{[^{}\s]+\}:once:[^:\s]+:[0-9]+$")
    """Redis key of the one attempt to run instead of serving queues. The operator sets it in the pod of a Task with
    `isolation: Pod`."""
    pool_kind: PoolKind = PoolKind.PREFORK
    """What runs Tasks concurrently: processes (`Prefork`) or `Threads`. A Task in its own pod always has a process."""
    concurrency: int = Field(default=1, ge=1, le=PoolKind.THREADS.most)
    """Number of Tasks that run at a time, each in its own process or thread. At most 64 processes."""
    handlers: Annotated[tuple[str, ...], NoDecode] = ()
    """Handler modules to import, in addition to the installed entry points of group `taskflow.handlers`."""
    app: str | None = Field(default=None, pattern=r"^[\w.]+(:[\w.]+)?$")
    """A Celery application whose tasks are served as handlers: `module:attribute`, or a module that has one."""
    name: str = Field(default_factory=socket.gethostname, pattern=r"^[^|\s]+$", max_length=200)
    """Name of the pod."""
    lease_seconds: int = Field(default=15, ge=2, le=600)
    """How long a silent worker keeps its attempts. The lease is renewed three times in this period."""
    drain_seconds: int = Field(default=50, ge=0, le=86400)
    """How long running handlers may continue after SIGTERM before their attempts are released. Keep it below the pod's
    grace period."""
    stop_grace_seconds: int = Field(default=10, ge=0, le=3600)
    """How long an attempt may continue after a stop request before its process is killed, or its thread given up."""
    thread_return_seconds: int = Field(default=60, ge=0, le=86400)
    """How long a thread that was given up may take to return. After that its worker drains and ends."""
    log_limit_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, le=1024 * 1024 * 1024)
    """How much output of an attempt is kept. It waits in memory while the object store is unavailable."""
    patience_seconds: int = Field(default=300, ge=0, le=86400)
    """How long a running attempt waits for an object store or a Redis that is unavailable."""

    @field_validator("queues", "handlers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("concurrency")
    @classmethod
    def _at_most_what_the_pool_allows(cls, value: int, info: ValidationInfo) -> int:
        kind: PoolKind = info.data.get("pool_kind", PoolKind.THREADS)
        if value > kind.most:
            raise ValueError(f"expected at most {kind.most} in a pool of kind {kind}, found {value}")
        return value
