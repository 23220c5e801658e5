"""Whether the kernel killed a process of this container for want of memory, by the container's control group.

Version 2 counts such kills in `memory.events` (`oom_kill`), version 1 in `memory.oom_control`. A container sees its own
group at the root of the mounted hierarchy. With version 2 Kubernetes has the kernel kill all of a container
(`memory.oom.group`), so this is for nodes with version 1 or `singleProcessOOMKill`; else the operator tells it.
"""

from __future__ import annotations

from pathlib import Path

from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import MORE_MEMORY, Reason

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Version 1 writes a number near 2^63 for no limit."""
_MIB = 1024 * 1024
_SIGKILL = "signal 9"


class MemoryKills:
    """Counts the kills. A group that cannot be read has none.

    Args:
        root: where the control groups are mounted.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._before = self._latest = self._count()

    def look(self) -> None:
        """To be called regularly: a kill is recent if it happened after the look before the last one."""
        self._before, self._latest = self._latest, self._count()

    def failure(self, message: str) -> Failure:
        """How an attempt ended whose process died.

        Args:
            message: how the process died, as its parent saw it.
        """
        # Another process of the container, such as a program that a handler started, may have been killed long ago.
        if _SIGKILL not in message or self._count() <= self._before:
            return Failure(reason=Reason.WORKER_LOST, message=message)
        return Failure(reason=Reason.OUT_OF_MEMORY, message=f"{message}: {self._usage()}; {MORE_MEMORY}")

    def _usage(self) -> str:
        limit = self._number("memory.max", "memory/memory.limit_in_bytes")
        used = self._number("memory.peak", "memory/memory.max_usage_in_bytes")
        if used is None:
            used = self._number("memory.current", "memory/memory.usage_in_bytes")
        bound = "no memory was left"
        if limit is not None and limit < _UNLIMITED:
            bound = f"its container reached its memory limit of {limit // _MIB} MiB"
        return bound + (f" ({used // _MIB} MiB used at most)" if used is not None else "")

    def _count(self) -> int:
        for name in ("memory.events", "memory/memory.oom_control"):
            for line in (self._read(name) or "").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill" and value.strip().isdigit():
                    return int(value)
        return 0

    def _number(self, *names: str) -> int | None:
        found = next((text for name in names if (text := self._read(name)) is not None), "")
        return int(found) if found.strip().isdigit() else None

    def _read(self, name: str) -> str | None:
        try:
            return (self._root / name).read_text()
        except (OSError, ValueError):
            return None
