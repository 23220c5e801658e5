"""The same load and the same faults with plain Celery, for comparison: what would be lost, and what would run twice."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tests.chaos.faults import Fault
from tests.chaos.ground import Ground, eventually
from tests.chaos.load import MIX, body
from tests.chaos.rounds import Line

VISIBILITY_SECONDS = 6
"""As TaskFlow's leases here: short, so that what comes back at all comes back while somebody looks."""
QUIET_SECONDS = 4 * VISIBILITY_SECONDS
WORKERS, CONCURRENCY = 3, 2


class Plain(Ground):
    """Redis behind a proxy and three Celery workers, which are started again when they end."""

    def __init__(self, folder: Path, *, away_seconds: float) -> None:
        super().__init__(folder, ("redis",), away_seconds=away_seconds, environ={}, components=("redis",))
        self._numbers = itertools.count()
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()

    def up(self, say: Callable[[str], None]) -> None:
        """Start everything."""
        self.stack.up(log=say)
        self.redis = self.connect()
        self._environ = {
            **os.environ,
            "TASKFLOW_REDIS_URL": self.workers_redis(),
            "PYTHONPATH": str(self.code),
            "TASKFLOW_CHAOS_RECORD": str(self.record),
            "TASKFLOW_CHAOS_VISIBILITY": str(VISIBILITY_SECONDS),
        }
        self.url = self.stack.env()["TASKFLOW_REDIS_URL"]
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        eventually(
            self.pods, lambda pods: sum(len(pids) > CONCURRENCY for pids in pods.values()) == WORKERS, 60, "workers"
        )

    def _keep(self) -> None:
        while not self._stop.wait(0.1):
            for name, process in list(self._workers.items()):
                if process.poll() is not None:
                    _kill(_descendants(process.pid))
                    del self._workers[name]
            while len(self._workers) < WORKERS:
                self._start(f"worker-{next(self._numbers)}")

    def _start(self, name: str) -> None:
        arguments = [sys.executable, "-m", "celery", "-A", "chaos_celery", "worker", "-c", str(CONCURRENCY)]
        arguments += [
            "-n",
            f"{name}@%h",
            "-l",
            "WARNING",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
        with (self.folder / f"{name}.log").open("ab") as output:
            self._workers[name] = subprocess.Popen(
                arguments, env=self._environ, stdout=output, stderr=output, start_new_session=True
            )

    def pods(self) -> dict[str, list[int]]:
        """Each worker's processes."""
        return {
            name: [process.pid, *_descendants(process.pid)]
            for name, process in list(self._workers.items())
            if process.poll() is None
        }

    def remove_pod(self, name: str) -> None:
        """It is started again anyway; what is left of it goes with it, as in a container."""
        process = self._workers.get(name)
        if process is not None:
            process.wait(10)

    def down(self) -> None:
        """Stop everything."""
        self._stop.set()
        self._keeper.join(10)
        for process in self._workers.values():
            _kill([process.pid, *_descendants(process.pid)])
            process.wait(10)
        super().down()


def _descendants(leader: int) -> list[int]:
    """Members of the session that it leads."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and int(entry.parent.name) != leader and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


class Producer:
    """Sends Tasks at the same pace; what the broker would not take is sent again, as a client would."""

    def __init__(self, url: str, count: int, per_second: float, random: Random) -> None:
        self._app = Celery("plain", broker=url, set_as_current=False)
        self._app.conf.broker_transport_options = {"socket_timeout": 5, "socket_connect_timeout": 5}
        self._count, self._rate, self._random = count, per_second, random
        self.sent: list[str] = []
        self._go_on = threading.Event()
        self._go_on.set()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        names, weights = zip(*MIX, strict=True)
        began = time.monotonic()
        while len(self.sent) < self._count or self._go_on.is_set():
            time.sleep(max(began + len(self.sent) / self._rate - time.monotonic(), 0))
            (handler,) = self._random.choices(names, weights)
            task = body("", handler, self._random)
            identity = f"{self._random.getrandbits(64):016x}"
            arguments = [handler, task["spec"].get("kwargs", {}).get("seconds", 0)]
            while not self._sent(identity, arguments):
                time.sleep(0.2)
            self.sent.append(identity)

    def _sent(self, identity: str, arguments: list[Any]) -> bool:
        try:
            self._app.send_task("plain.work", arguments, task_id=identity, retry=False)
        except (KombuError, RedisError, OSError):
            return False
        return True

    def end(self) -> list[str]:
        """Stop, and say what was sent."""
        self._go_on.clear()
        self._thread.join(120)
        self._app.close()
        return self.sent


def _progress(record: Path) -> tuple[Counter[tuple[str, int]], set[str]]:
    """Starts of each attempt, and the Tasks that came to an end."""
    starts: Counter[tuple[str, int]] = Counter()
    ended = set()
    for line in record.read_text().splitlines():
        said = json.loads(line)
        if said["what"] == "start":
            starts[said["uid"], said["attempt"]] += 1
        identity, attempt, _ = said["run"].split(":")
        if said["what"] == "end" or (said["what"] == "raise" and int(attempt) > 3):
            ended.add(identity)
    return starts, ended


def run(
    plain: Plain, faults: Sequence[Fault], tasks: int, rate: float, seed: int, tell: Callable[[Line], None]
) -> None:
    """Each fault once, with Tasks of its own."""
    for fault in faults:
        random = Random(f"{seed}/0/{fault.name}")
        producer = Producer(plain.url, tasks, rate, Random(random.getrandbits(64)))
        eventually(lambda made=producer.sent: len(made), lambda made: made >= 8, 60, "the first Tasks")  # type: ignore[misc]
        struck = fault.act(plain, random)  # type: ignore[arg-type]
        sent = producer.end()
        _settle(plain, set(sent))
        starts, ended = _progress(plain.record)
        beyond = sum(count - 1 for (identity, _), count in starts.items() if identity in set(sent))
        tell(Line(f"plain {fault.name}", len(sent), struck, len(set(sent) - ended), beyond))


def _settle(plain: Plain, sent: set[str]) -> None:
    """Until all have ended, or nothing has moved for several visibility timeouts."""
    last, moved = -1, time.monotonic()
    while time.monotonic() - moved < QUIET_SECONDS:
        if not sent - _progress(plain.record)[1]:
            return
        size = plain.record.stat().st_size
        if size != last:
            last, moved = size, time.monotonic()
        time.sleep(0.3)
