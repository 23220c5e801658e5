"""What the slots of a worker are."""

from __future__ import annotations

from enum import StrEnum


class PoolKind(StrEnum):
    """`spec.pool` of a WorkerPool: what runs the Tasks of one worker side by side."""

    PREFORK = "Prefork"
    """Processes, forked from the worker."""
    THREADS = "Threads"
    """Threads of the worker's own process."""

    @property
    def most(self) -> int:
        """How many of them a worker may have."""
        return 256 if self is PoolKind.THREADS else 64
