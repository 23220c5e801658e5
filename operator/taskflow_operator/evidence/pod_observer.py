"""Takes in the pods of workers, remembers those that are gone, and tells when a worker's container ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient, resource_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.evidence.judgement import WorkerPod, judge
from taskflow_operator.tasks.ports import Death

log = get_logger(__name__)
SELECTOR = f"{naming.LABEL_MANAGED_BY}={naming.MANAGED_BY}"
GONE = 5000
"""Pods that are remembered after they are gone."""
SLACK = timedelta(seconds=60)
"""How long after a lease ran out the end of a container still explains it: clocks differ, and statuses come late."""

Ended = Callable[[str, str, datetime], None]
"""Called with namespace, pod, and when its container ended."""


class PodObserver:
    """The pods of pools, and of Tasks with pods of their own.

    Args:
        kube: the API server.
        lease_seconds: how long a silent worker keeps its attempts.
        now: the time.
    """

    def __init__(
        self, kube: KubeClient, *, lease_seconds: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._kube = kube
        self._recent = timedelta(seconds=lease_seconds) + SLACK
        self._now = now
        self._pods: dict[tuple[str, str], WorkerPod] = {}
        self._gone: OrderedDict[tuple[str, str], WorkerPod] = OrderedDict()
        self.ended: list[Ended] = []
        """Who wants to know of ended containers."""

    def death(self, namespace: str, pod: str) -> Death | None:
        """Why the worker of that pod died, as far as is known; None if there is no such pod."""
        found = self._pods.get((namespace, pod)) or self._gone.get((namespace, pod))
        return None if found is None else judge(found, self._now(), self._recent)

    def observe(self, body: dict[str, Any], *, gone: bool = False) -> None:
        """Take in a pod as the API server shows it."""
        pod = WorkerPod.from_object(body, gone=gone)
        place = pod.namespace, pod.name
        if gone:
            self._forget(pod)
            return
        before = self._pods.get(place)
        self._pods[place] = pod
        known = before.ended_at if before is not None and before.uid == pod.uid else None
        if pod.ended_at is not None and pod.ended_at != known and self._now() - pod.ended_at < self._recent:
            for tell in self.ended:
                tell(pod.namespace, pod.name, pod.ended_at)

    def _forget(self, pod: WorkerPod) -> None:
        place = pod.namespace, pod.name
        self._pods.pop(place, None)
        self._gone[place] = replace(pod, gone=True)
        self._gone.move_to_end(place)
        if len(self._gone) > GONE:
            self._gone.popitem(last=False)

    async def list(self) -> str:
        """List all pods of workers; those that are known and not in the list are gone.

        Returns the resourceVersion of the list.

        Raises:
            Unavailable, Conflict: the list could not be read to its end.
        """
        before, version = dict(self._pods), ""
        async for page in self._kube.list_pages(resource_path("api/v1", "pods"), label_selector=SELECTOR):
            version = page.version
            for body in page.items:
                before.pop(_place(body), None)
                self.observe(body)
        for place in before.keys() & self._pods.keys():
            self._forget(self._pods[place])
        return version


def _place(body: Mapping[str, Any]) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]
