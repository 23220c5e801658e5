"""Faults that plain Celery can meet as well: of workers and of Redis."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from random import Random

from tests.chaos.ground import Ground

PAUSE_SECONDS = 7
"""Longer than a lease, and than the visibility timeout that plain Celery gets."""


def worker_main(site: Ground, random: Random) -> int:
    """The main process alone; its children end with the container."""
    name, pids = site.busy_pod()
    os.kill(pids[0], signal.SIGKILL)
    site.remove_pod(name)
    return 1


def worker_child(site: Ground, random: Random) -> int:
    """Two processes of pools, each while it runs a handler."""
    for _ in range(2):
        _, pids = site.busy_pod()
        for pid in site.running() & set(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            break
        time.sleep(random.uniform(0.1, 0.5))
    return 2


def worker_all(site: Ground, random: Random) -> int:
    """All processes of a pod at once, as when a node is lost."""
    name, pids = site.busy_pod()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    site.remove_pod(name)
    return 1


def worker_paused(site: Ground, random: Random) -> int:
    """All processes of a pod, for longer than their lease."""
    _, pids = site.busy_pod()
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return 1


def redis_restart(site: Ground, random: Random) -> int:
    """SIGKILL and a start on the same append-only file."""
    site.stack.stop("redis", signal.SIGKILL)
    time.sleep(random.uniform(0, 1))
    site.stack.start("redis")
    return 1


def redis_lost(site: Ground, random: Random) -> int:
    """SIGKILL and a start without the append-only file."""
    site.stack.stop("redis", signal.SIGKILL)
    shutil.rmtree(site.stack.folder.data / "redis")
    site.data_losses += 1
    site.stack.start("redis")
    return 1


def redis_flush(site: Ground, random: Random) -> int:
    site.redis.flushall()
    site.data_losses += 1
    return 1


def redis_clients(site: Ground, random: Random) -> int:
    """All connections, three times."""
    for _ in range(3):
        site.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(random.uniform(0.2, 1.0))
    return 3
