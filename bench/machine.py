"""CPU, memory and load of the components, and percentiles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from taskflow_local.stack import Stack

TICK = os.sysconf("SC_CLK_TCK")
WORKERS = "workers"
PARTS = ("kube-apiserver", "etcd", "redis", "postgres", "operator")


@dataclass(frozen=True)
class Usage:
    """CPU seconds used so far and current resident bytes of one component with all its processes."""

    cpu: float
    resident: int


def of_component(stack: Stack, name: str) -> Usage:
    """Usage of one running component, with its processes."""
    pid = stack.pid(name)
    return _of(_family(pid)) if pid is not None else Usage(0.0, 0)


def of_process(pid: int) -> Usage:
    """Usage of one process and its children."""
    return _of(_family(pid))


def usage(stack: Stack) -> dict[str, Usage]:
    """Usage of each component, and of all workers together."""
    found = {name: _of(_family(pid)) for name in PARTS if (pid := stack.pid(name)) is not None}
    pods = str(stack.folder.pods).encode()
    workers = [pid for pid in _all() if b"taskflow_worker" in _read(pid, "cmdline") and pods in _read(pid, "environ")]
    return {**found, WORKERS: _of(workers)}


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@contextmanager
def apart(stack: Stack, *names: str) -> Iterator[None]:
    """Reserve the first core for these components; the rest of the stack and this process use the others.

    Raises:
        RuntimeError: there is only one core.
    """
    every = os.sched_getaffinity(0)
    first, *others = sorted(every)
    if not others:
        raise RuntimeError("nothing can be kept apart on one core")
    alone = {pid for name in names if (main := stack.pid(name)) is not None for pid in _family(main)}
    folder = str(stack.folder.root).encode()
    stacks = {pid for pid in _all() if folder in _read(pid, "cmdline") + _read(pid, "environ")}
    pids = stacks | alone | {os.getpid()}
    try:
        for pid in pids:
            _pin(pid, {first} if pid in alone else set(others))
        yield
    finally:
        for pid in pids:
            _pin(pid, every)


def _pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def load() -> str:
    """The load of the machine, to judge the figures."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _family(pid: int) -> list[int]:
    return [pid, *(other for other in _all() if _parent(other) == pid)]


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b") ")[2].split()
    return int(fields[1]) if fields else 0


def _of(pids: Iterable[int]) -> Usage:
    cpu, pages = 0.0, 0
    for pid in pids:
        fields = _read(pid, "stat").rpartition(b") ")[2].split()
        if fields:
            cpu += (int(fields[11]) + int(fields[12])) / TICK
            pages += int(fields[21])
    return Usage(cpu, pages * os.sysconf("SC_PAGE_SIZE"))


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
