"""`python -m bench.jobs`: a Task against a Job, which creates one pod for each run, in the cluster of KUBECONFIG.

Both do nothing, so the overhead is measured. NAMESPACE has a pool that serves the queue `default`. The Jobs use that
pool's image, so no image is pulled for them. Runs N of each one after the other, then N of each at once.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.machine import load, percentile
from bench.own_stack import say
from bench.tasks import body
from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient, resource_path, tasks_path

COUNT = int(os.environ.get("N", "20"))
NAMESPACE = os.environ.get("NAMESPACE", "default")


@dataclass
class Kind:
    """A kind of object: its path, its manifest, and how to tell that it has ended."""

    name: str
    path: str
    make: Callable[[str], dict[str, Any]]
    ended: Callable[[Mapping[str, Any]], bool]
    began: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, kube: KubeClient, listening: asyncio.Event) -> None:
        """Record when each object has ended, as a watcher sees it; until cancelled."""
        listed = await kube.request("GET", self.path)
        async for events in kube.watch(self.path, listed["metadata"]["resourceVersion"]):
            listening.set()
            for event in events:
                if event["type"] == "MODIFIED" and self.ended(event["object"].get("status") or {}):
                    self.seen.setdefault(event["object"]["metadata"]["name"], time.monotonic())
            async with self.news:
                self.news.notify_all()
        raise RuntimeError(f"the watch of {self.name} ended, which is not to happen within minutes")

    async def run(self, kube: KubeClient, name: str) -> None:
        """Create one and wait for its end."""
        self.began[name] = time.monotonic()
        await kube.request("POST", self.path, self.make(name))
        async with self.news:
            await self.news.wait_for(lambda: name in self.seen)

    def seconds(self, prefix: str) -> list[float]:
        """Seconds from the request to the observed end, of objects whose names have this prefix."""
        return [self.seen[name] - began for name, began in self.began.items() if name.startswith(prefix)]


def job(name: str, template: Mapping[str, Any]) -> dict[str, Any]:
    """A Job that does nothing in a pod like those of the pool."""
    worker = next(each for each in template["containers"] if each["name"] == naming.WORKER_CONTAINER)
    kept = {key: worker[key] for key in ("image", "imagePullPolicy", "securityContext") if key in worker}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": template.get("securityContext", {}),
        "containers": [{"name": "work", "command": ["true"], **kept}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


async def kinds(kube: KubeClient) -> tuple[Kind, Kind]:
    """The two kinds: Tasks, and Jobs with pods like those of the first pool of the namespace."""
    found = await kube.request(
        "GET", resource_path("apis/apps/v1", "deployments", NAMESPACE), params={"labelSelector": naming.LABEL_POOL}
    )
    if not found["items"]:
        raise SystemExit(f"expected a WorkerPool with a Deployment in namespace {NAMESPACE!r}, found none")
    template = found["items"][0]["spec"]["template"]["spec"]
    return (
        Kind(
            "Task",
            tasks_path(NAMESPACE),
            lambda name: body(name, "taskflow.echo", kwargs={"value": name}),
            lambda status: status.get("phase") in ("Succeeded", "Failed"),
        ),
        Kind(
            "Job",
            resource_path("apis/batch/v1", "jobs", NAMESPACE),
            lambda name: job(name, template),
            lambda status: any(
                each["type"] in ("Complete", "Failed") and each["status"] == "True"
                for each in status.get("conditions", ())
            ),
        ),
    )


async def measure(kube: KubeClient) -> None:
    """Run the objects one after the other, then all at once; both kinds in turn, so that load affects both."""
    both = await kinds(kube)
    listening = [asyncio.Event() for _ in both]
    watchers = [asyncio.create_task(kind.follow(kube, event)) for kind, event in zip(both, listening, strict=True)]
    stamp = f"{int(time.time())}"
    try:
        for event in listening:
            await event.wait()
        for number in range(COUNT):
            for kind in both:
                await kind.run(kube, f"one-{stamp}-{number}")
        say(f"load {load()}; {COUNT} of each that do nothing, one after the other, create -> end seen, ms")
        say(f"{'':<10}{'p50':>8}{'p99':>8}")
        medians = []
        for kind in both:
            values = [value * 1000 for value in kind.seconds("one-")]
            medians.append(statistics.median(values))
            say(f"{kind.name:<10}{medians[-1]:>8.0f}{percentile(values, 0.99):>8.0f}")
        say(f"{'ratio':<10}{medians[1] / medians[0]:>8.0f}")
        say(f"\n{COUNT} of each at once, seconds until the last had ended")
        for kind in both:
            began = time.monotonic()
            await asyncio.gather(*(kind.run(kube, f"all-{stamp}-{number}") for number in range(COUNT)))
            say(f"{kind.name:<10}{time.monotonic() - began:>8.2f}")
    finally:
        for watcher in watchers:
            watcher.cancel()
        for kind in both:
            for name in kind.began:
                await kube.request("DELETE", f"{kind.path}/{name}", params={"propagationPolicy": "Background"})


async def _main() -> None:
    kube = await KubeClient.connect(connections=max(COUNT, 4) + 2)
    try:
        await measure(kube)
    finally:
        await kube.close()


def main() -> int:
    """Measure; return 0."""
    asyncio.run(_main())
    return 0


if __name__ == "__main__":
    sys.exit(main())
