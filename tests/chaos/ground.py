"""What faults need of what they hurt, whether that is TaskFlow or plain Celery."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import redis as redis_client

from taskflow_local.stack import Stack
from tests.chaos.proxy import Proxy

CODE = Path(__file__).parent / "code"
T = TypeVar("T")


def eventually(read: Callable[[], T], holds: Callable[[T], bool], seconds: float, what: str) -> T:
    """What `read` returns once it `holds`. Raises TimeoutError with the last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if holds(value):
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {seconds:.0f} s, last {str(value)[:400]}")
        time.sleep(0.05)


class Ground:
    """Servers behind proxies, workers, and the record that their handlers keep.

    Args:
        folder: of this run alone.
        servers: components that are reached through a proxy. Workers have their own way to Redis, `worker-redis`.
        away_seconds: how long what is taken away stays away.
        environ: for the stack.
        components: of the stack; None is all.
    """

    def __init__(
        self,
        folder: Path,
        servers: Sequence[str],
        *,
        away_seconds: float,
        environ: Mapping[str, str],
        components: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.away_seconds = away_seconds
        self.code = folder / "code"
        shutil.copytree(CODE, self.code, ignore=shutil.ignore_patterns("__pycache__"))
        self.record = folder / "record.jsonl"
        self.record.touch()
        # Each asks for its port when somebody connects, which is after the stack has chosen one.
        targets = {**{name: name for name in servers}, "worker-redis": "redis"}
        self.ways = {way: Proxy(partial(self._port, name)) for way, name in targets.items()}
        through = {name: self.ways[name].port for name in servers}
        whole = {**os.environ, **environ, "PYTHONPATH": str(self.code)}
        more = {} if components is None else {"components": components}
        self.stack = Stack(folder / "stack", environ=whole, through=through, **more)
        self.data_losses = 0
        self.redis: Any = None

    def connect(self) -> Any:
        """Redis by its own port. Typed loosely: redis-py's answers are unions of everything."""
        url = self.stack.env()["TASKFLOW_REDIS_URL"]
        return redis_client.Redis.from_url(url, decode_responses=True, socket_timeout=10)

    def _port(self, name: str) -> int:
        return self.stack.port(name)

    def workers_redis(self) -> str:
        """The URL by which workers reach Redis."""
        found = self.stack.env()["TASKFLOW_REDIS_URL"]
        return found.replace(f":{self.stack.port('redis')}/", f":{self.ways['worker-redis'].port}/")

    def down(self) -> None:
        """Stop everything."""
        self.stack.down(log=lambda _: None)
        for way in self.ways.values():
            way.close()

    def pods(self) -> dict[str, list[int]]:
        """Processes of each worker, its main process first, by a name."""
        raise NotImplementedError

    def remove_pod(self, name: str) -> None:
        """Let another one be made in its place, now."""
        raise NotImplementedError

    def running(self) -> set[int]:
        """Processes that run a handler right now, by the handlers' own record."""
        found: dict[str, int] = {}
        for line in self.record.read_text().splitlines()[-200:]:
            said = json.loads(line)
            if said["what"] == "start":
                found[said["run"]] = said["pid"]
            else:
                found.pop(said["run"], None)
        return set(found.values())

    def busy_pod(self) -> tuple[str, list[int]]:
        """A worker that runs a handler; waits for one."""

        def look() -> list[tuple[str, list[int]]]:
            running = self.running()
            return [pod for pod in sorted(self.pods().items()) if running & set(pod[1])]

        return eventually(look, bool, 60, "a worker that runs something")[0]
