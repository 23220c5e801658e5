"""Tasks at a steady pace, of all kinds, while something else happens."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from taskflow_core.domain import naming
from tests.chaos.api_server import ApiServer
from tests.chaos.oracle import Wanted

# Attempts that a fault takes must not use up a Task: what is looked for is a loss, not a policy.
ATTEMPTS = 20
SOON = {"maxAttempts": ATTEMPTS, "backoffSeconds": 1, "backoffFactor": 1, "jitterPercent": 0}
MIX = (
    ("chaos.quick", 0.40),
    ("chaos.work", 0.35),
    ("chaos.again", 0.08),
    ("chaos.artifact", 0.10),
    ("chaos.large", 0.05),
    ("chaos.never", 0.02),
)

ARRAYS = 0.03
"""Share of Tasks that are arrays."""


def array(name: str, random: Random) -> dict[str, Any]:
    """A Task of some hundreds of items, of which some fail their first attempt."""
    spec = {
        "handler": "chaos.items",
        "args": [round(random.uniform(0.0, 0.02), 4)],
        "array": {"count": random.randint(100, 600), "parallelism": random.randint(1, 8)},
        "retryPolicy": SOON,
    }
    return {"apiVersion": naming.API_VERSION, "kind": "Task", "metadata": {"name": name}, "spec": spec}


def body(name: str, handler: str, random: Random) -> dict[str, Any]:
    """A Task for one of the handlers."""
    spec: dict[str, Any] = {"handler": handler, "retryPolicy": SOON}
    if handler == "chaos.work":
        spec["kwargs"] = {"seconds": round(random.uniform(0.2, 1.5), 2)}
    if handler == "chaos.artifact":
        spec["outputs"] = [{"name": "run.txt"}]
    if handler == "chaos.never":
        # Other attempts of it may be taken by faults; two failures of its own are then still too many.
        spec["retryPolicy"] = {**SOON, "maxAttempts": 4}
    return {"apiVersion": naming.API_VERSION, "kind": "Task", "metadata": {"name": name}, "spec": spec}


@dataclass
class Load:
    """Creates Tasks until there are enough and nobody needs it to go on; once there are enough, at a tenth of the
    rate.
    """

    api: ApiServer
    prefix: str
    count: int
    per_second: float
    random: Random
    wanted: list[Wanted] = field(default_factory=list)
    error: Exception | None = None
    _go_on: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin, in threads: one that waits for an API server must not stop the others."""
        self._go_on.set()
        bodies = self._bodies()
        lock = threading.Lock()
        began = time.monotonic()
        self._made = 0

        def work() -> None:
            while True:
                with lock:
                    if self._made >= self.count and not self._go_on.is_set():
                        return
                    number = self._made
                    self._made += 1
                    task = next(bodies)
                due = min(number, self.count) + max(number - self.count, 0) * 10
                time.sleep(max(began + due / self.per_second - time.monotonic(), 0))
                try:
                    made = self.api.create_task(task)
                except Exception as error:  # noqa: BLE001 - told by `end`, in the thread that asks
                    self.error = error
                    return
                handler = task["spec"]["handler"]
                phase = "Failed" if handler == "chaos.never" else "Succeeded"
                items = task["spec"].get("array", {}).get("count", 0)
                self.wanted.append(Wanted(task["metadata"]["name"], made["metadata"]["uid"], handler, phase, items))

        self._threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
        for each in self._threads:
            each.start()

    def _bodies(self) -> Any:
        names, weights = zip(*MIX, strict=True)
        number = 0
        while True:
            (handler,) = self.random.choices(names, weights)
            name = f"{self.prefix}-{number}"
            is_array = self.random.random() < ARRAYS
            yield array(name, self.random) if is_array else body(name, handler, self.random)
            number += 1

    def end(self, seconds: float = 120) -> None:
        """Nobody needs it to go on; wait until it has ended. Raises what a creation failed with."""
        self._go_on.clear()
        deadline = time.monotonic() + seconds + self.count / self.per_second
        for each in self._threads:
            each.join(max(deadline - time.monotonic(), 0))
        if self.error is not None:
            raise self.error
        if any(each.is_alive() for each in self._threads):
            raise TimeoutError(f"{self.prefix}: the Tasks could not be created in time")
