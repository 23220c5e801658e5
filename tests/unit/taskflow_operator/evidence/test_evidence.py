from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskflow_core.domain.phases import Reason
from taskflow_operator.evidence.judgement import WorkerPod, judge
from taskflow_operator.evidence.pod_observer import GONE, PodObserver
from tests.builders import NOW

RECENT = timedelta(seconds=75)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def terminated(reason: str = "OOMKilled", code: int = 137, seconds: float = -5, **fields: Any) -> dict[str, Any]:
    return {"exitCode": code, "reason": reason, "startedAt": at(-3600), "finishedAt": at(seconds), **fields}


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "worker", "state": {"running": {"startedAt": at(-3600)}}, "ready": True, **fields}


def body(name: str = "w-1", uid: str = "u", limit: str | None = "256Mi", **status: Any) -> dict[str, Any]:
    resources = {"limits": {"memory": limit}} if limit else {}
    return {
        "metadata": {"namespace": "team-a", "name": name, "uid": uid},
        "spec": {"nodeName": "n1", "containers": [{"name": "proxy"}, {"name": "worker", "resources": resources}]},
        "status": {"phase": "Running", "containerStatuses": [container()]} | status,
    }


def judged(*, gone: bool = False, **fields: Any) -> tuple[Reason, str]:
    death = judge(WorkerPod.from_object(body(**fields), gone=gone), NOW, RECENT)
    return death.reason, death.message


@pytest.mark.parametrize("place", ["state", "lastState"])
def test_a_container_killed_for_want_of_memory_is_told_with_limit_node_and_advice(place: str) -> None:
    reason, message = judged(containerStatuses=[container(**{place: {"terminated": terminated()}})])
    assert reason is Reason.OUT_OF_MEMORY
    assert message.startswith("container worker of pod w-1 on node n1 used its memory limit of 256Mi and was killed")
    assert "OOMKilled, exit code 137" in message
    assert message.endswith("isolation: Pod")


def test_without_a_limit_it_is_the_nodes_memory() -> None:
    _, message = judged(limit=None, containerStatuses=[container(lastState={"terminated": terminated()})])
    assert "has no memory limit, and its node had none left" in message


def test_an_end_long_ago_explains_nothing() -> None:
    old = {"terminated": terminated(seconds=-76)}
    reason, message = judged(containerStatuses=[container(lastState=old)])
    assert (reason, "pod w-1 on node n1 still runs" in message) == (Reason.WORKER_LOST, True)


def test_another_end_is_told_with_exit_code_and_last_words() -> None:
    ended = {"terminated": terminated("Error", 139, message="Fatal Python error: Segmentation fault")}
    reason, message = judged(containerStatuses=[container(lastState=ended)])
    assert reason is Reason.WORKER_LOST
    assert message == (
        "container worker of pod w-1 on node n1 ended with exit code 139: Fatal Python error: Segmentation fault"
    )


def condition(reason: str) -> dict[str, Any]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "the reason why"}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            Reason.EVICTED,
            "pod w-1 on node n1 was evicted: The node was low on resource: memory.",
        ),
        ({"conditions": [condition("PreemptionByScheduler")]}, Reason.PREEMPTED, "was preempted: the reason why"),
        ({"conditions": [condition("DeletionByTaintManager")]}, Reason.NODE_LOST, "lost or tainted: the reason why"),
        ({"conditions": [condition("DeletionByPodGC")]}, Reason.NODE_LOST, "its node, which is gone"),
        ({"conditions": [condition("EvictionByEvictionAPI")]}, Reason.EVICTED, "was evicted: the reason why"),
        ({"conditions": [condition("TerminationByKubelet")]}, Reason.EVICTED, "was ended by its node"),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, Reason.NODE_LOST, "its node does not report"),
        ({"conditions": [condition("SomethingNew")]}, Reason.WORKER_LOST, "still runs"),
    ],
)
def test_what_the_cluster_did_to_the_pod_is_told(status: dict[str, Any], reason: Reason, words: str) -> None:
    found, message = judged(**status)
    assert (found, words in message) == (reason, True), message


def test_a_worker_that_is_not_ready_by_its_own_probe_is_not_cut_off() -> None:
    not_ready = {"type": "Ready", "status": "False"}
    assert judged(conditions=[not_ready], containerStatuses=[container(ready=False)])[0] is Reason.WORKER_LOST


def test_a_pod_that_was_deleted_is_told_with_how() -> None:
    reason, message = judged(gone=True)
    assert (reason, message) == (
        Reason.POD_DELETED,
        "pod w-1 on node n1 was deleted with force, while its container ran",
    )
    ended = [container(state={"terminated": terminated("Error", 0, seconds=-300)})]
    assert "before its worker ended the attempt" in judged(gone=True, containerStatuses=ended)[1]


class Pods:
    """The list of pods."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = items

    async def list_pages(self, path: str, *, label_selector: str) -> AsyncIterator[Any]:
        assert (path, label_selector) == ("/api/v1/pods", "app.kubernetes.io/managed-by=taskflow-operator")
        yield SimpleNamespace(version="7", items=self.items)


def observer(pods: Pods | None = None) -> tuple[PodObserver, list[tuple[str, str, datetime]]]:
    made, told = PodObserver(cast("Any", pods or Pods()), lease_seconds=15, now=lambda: NOW), list[Any]()
    made.ended.append(lambda *ended: told.append(ended))
    return made, told


def test_the_end_of_a_container_is_told_once() -> None:
    pods, told = observer()
    pods.observe(body())
    assert told == []
    dead = body(containerStatuses=[container(state={"terminated": terminated()})])
    pods.observe(dead)
    pods.observe(dead)
    assert told == [("team-a", "w-1", NOW - timedelta(seconds=5))]
    restarted = {"running": {"startedAt": at(-1)}}
    pods.observe(body(containerStatuses=[container(state=restarted, lastState={"terminated": terminated()})]))
    assert len(told) == 1, "it is the same end"


def test_an_end_that_was_missed_is_told_when_the_next_container_runs() -> None:
    pods, told = observer()
    restarted = {"running": {"startedAt": at(-2)}}
    pods.observe(body(containerStatuses=[container(state=restarted, lastState={"terminated": terminated()})]))
    assert told == [("team-a", "w-1", NOW - timedelta(seconds=5))]


def test_an_end_of_yesterday_is_no_news() -> None:
    pods, told = observer()
    pods.observe(body(containerStatuses=[container(lastState={"terminated": terminated(seconds=-86400)})]))
    assert told == []


async def test_a_pod_that_is_gone_is_remembered_for_a_while() -> None:
    pods, _ = observer(Pods(body("other")))
    assert pods.death("team-a", "w-1") is None
    pods.observe(body())
    pods.observe(body(), gone=True)
    pods.observe(body("third"))
    assert await pods.list() == "7"
    for name in ("w-1", "third"):
        death = pods.death("team-a", name)
        assert death is not None
        assert death.reason is Reason.POD_DELETED
    for number in range(GONE):
        pods.observe(body(f"p{number}"), gone=True)
    assert pods.death("team-a", "w-1") is None
