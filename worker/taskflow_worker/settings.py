from __future__ import annotations

import socket
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from taskflow_core.domain.slots import PoolKind


class WorkerSettings(BaseSettings):
    """One worker process group. The operator sets these in the pods of a WorkerPool."""

    model_config = SettingsConfigDict(env_prefix="TASKFLOW_WORKER_", frozen=True)

    namespace: str
    """Namespace whose Tasks it runs."""
    pool: str = ""
    """The WorkerPool that it belongs to; empty for a worker that is run by hand, which no scaling touches."""
    queues: Annotated[tuple[str, ...], NoDecode] = Field(min_length=1)
    """Queues that it serves, separated by commas."""
    once: str | None = Field(default=None, pattern=r"^tf:once:[^:\s]+:[0-9]+$")
    """Redis key of the only attempt that it runs, in place of serving queues. The operator sets it in the pod of a Task with
    `isolation: Pod`."""
    pool_kind: PoolKind = PoolKind.PREFORK
    """What runs Tasks side by side: processes, `Prefork`, or `Threads`. A Task in a pod of its own has a process in either case."""
    concurrency: int = Field(default=1, ge=1, le=PoolKind.THREADS.most)
    """Tasks at a time, each in a process or a thread of its own; at most 64 processes."""
    handlers: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules to import for their handlers, besides the installed entry points of group `taskflow.handlers`."""
    app: str | None = Field(default=None, pattern=r"^[\w.]+(:[\w.]+)?$")
    """A Celery application whose tasks are served as handlers too: `module:attribute`, or a module that has one."""
    name: str = Field(default_factory=socket.gethostname, pattern=r"^[^|\s]+$", max_length=200)
    """Name of the pod."""
    lease_seconds: int = Field(default=15, ge=2, le=600)
    """How long a silent worker keeps its attempts. Renewed three times in this span."""
    drain_seconds: int = Field(default=50, ge=0, le=86400)
    """After SIGTERM, how long running handlers may go on before their attempts are handed back. Keep it below the pod's
    grace period."""
    stop_grace_seconds: int = Field(default=10, ge=0, le=3600)
    """How long an attempt that was told to stop may go on before its process is killed, or its thread given up."""
    thread_return_seconds: int = Field(default=60, ge=0, le=86400)
    """How long a thread that was given up may take to come back. After that its worker takes nothing more, drains and ends."""
    log_limit_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, le=1024 * 1024 * 1024)
    """How much of what an attempt prints and logs is kept; it waits in memory while the object store is away."""
    patience_seconds: int = Field(default=300, ge=0, le=86400)
    """How long a running attempt waits for an object store or a Redis that does not answer."""

    @field_validator("queues", "handlers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("concurrency")
    @classmethod
    def _no_more_than_that_pool_may_have(cls, value: int, info: ValidationInfo) -> int:
        kind: PoolKind = info.data.get("pool_kind", PoolKind.THREADS)
        if value > kind.most:
            raise ValueError(f"expected at most {kind.most} in a pool of kind {kind}, found {value}")
        return value
