"""A WorkerPool of one test."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import redis

from taskflow_core.domain.naming import keys_of
from tests.api_server import PODS, TASKS
from tests.e2e.product import Product, eventually, task


class OwnPool:
    """A WorkerPool of one test, with a queue of its own."""

    def __init__(self, product: Product, name: str, **spec: Any) -> None:
        self.product, self.name = product, name
        self.record = product.folder / f"{name}.record"
        self._spec: dict[str, Any] = spec
        self.change()

    def change(self, variables: dict[str, str] | None = None, **spec: Any) -> None:
        self._spec |= spec
        env = {"TASKFLOW_WORKER_HANDLERS": "e2e_handlers"} | (variables or {})
        containers = [{"name": "worker", "env": [{"name": key, "value": value} for key, value in env.items()]}]
        template = {"spec": {"terminationGracePeriodSeconds": 25, "containers": containers}}
        self.product.apply(
            {
                "apiVersion": "taskflow.dev/v1alpha1",
                "kind": "WorkerPool",
                "metadata": {"name": self.name},
                "spec": {"queues": [self.name], "template": template, **self._spec},
            }
        )

    def run(self, *seconds: float) -> list[str]:
        """Start Tasks that take so long; their names."""
        known = len(self.product.api_server.list(TASKS))
        names = [f"{self.name}-{known + number}" for number in range(len(seconds))]
        self.product.apply(
            *(
                task(name, "e2e.recorded_sleep", queue=self.name, args=[str(self.record), length])
                for name, length in zip(names, seconds, strict=True)
            )
        )
        return names

    def status(self) -> dict[str, Any]:
        return self.product.pool(self.name)

    def pods(self) -> list[str]:
        """Names of the pods that are not ending."""
        label = f"taskflow.dev/pool={self.name}"
        items = self.product.api_server.list(PODS, label)
        return [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]

    def serving(self) -> list[bool]:
        """Whether each of its workers takes messages, by what they say in Redis."""
        with redis.Redis.from_url(self.product.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True) as client:
            reports = [json.loads(text) for text in client.hvals(keys_of("default").workers)]
        return [report["serving"] for report in reports if report["pool"] == self.name]

    def has(self, count: int, seconds: float = 60) -> None:
        eventually(self.pods, lambda pods: len(pods) == count, seconds)

    def executions(self) -> Counter[tuple[str, str]]:
        """How often each Task began and ended, by what the handlers wrote."""
        lines = [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []
        return Counter((line["uid"], line["what"]) for line in lines)

    def all_ran_once(self, names: list[str]) -> None:
        self.product.kubectl("wait", *[f"tft/{name}" for name in names], "--for=condition=Finished", "--timeout=120s")
        found = [self.product.task(name) for name in names]
        assert {each["status"]["phase"] for each in found} == {"Succeeded"}
        assert {each["status"]["attempts"] for each in found} == {1}
        uids = [each["metadata"]["uid"] for each in found]
        assert self.executions() == Counter({(uid, what): 1 for uid in uids for what in ("start", "end")})
