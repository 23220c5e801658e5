from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import TaskStatus
from taskflow_core.domain.workerpool import WorkerPool, WorkerPoolSpec
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.tracing import NoTracing
from taskflow_operator.pools.controller import PoolState
from taskflow_operator.pools.metrics import PoolMetrics
from taskflow_operator.pools.scaling import Demand
from taskflow_operator.pools.status import PoolFacts, PoolFigures
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.queue_metrics import QueueMetrics
from tests.unit.taskflow_operator.builders import CREATED, CREATED_MS, make_event, make_task


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No series of another test."""
    metrics.forget_queues([])
    metrics._handlers.clear()
    yield
    metrics.forget_queues([])
    metrics._handlers.clear()


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_an_attempt_is_counted_with_its_wait_its_run_and_its_reason() -> None:
    times, task = AttemptTimes(NoTracing()), make_task(queue="q", priority=7)
    times.queued(task, CREATED_MS + 1000)
    # Sent again because its message was lost, it has waited all the same.
    times.queued(task, CREATED_MS + 1010)
    times.note(task, make_event(EventKind.STARTED, 1020))
    times.note(task, make_event(EventKind.STARTED, 1020))
    times.note(task, make_event(EventKind.SUCCEEDED, 3020))
    assert sample("taskflow_task_queue_wait_seconds_sum", queue="q", priority="7") == pytest.approx(0.02)
    assert sample("taskflow_task_queue_wait_seconds_count", queue="q", priority="7") == 1
    assert sample("taskflow_task_start_latency_seconds_sum", queue="q") == pytest.approx(1.02)
    run = {"queue": "q", "handler": "h", "outcome": "succeeded"}
    assert sample("taskflow_task_run_seconds_sum", **run) == pytest.approx(2.0)
    assert sample("taskflow_task_attempts_total", queue="q", reason="Succeeded") == 1
    assert not times._times


def test_what_a_former_operator_saw_begin_is_counted_without_a_wait() -> None:
    times = AttemptTimes(NoTracing())
    times.note(make_task(queue="q"), make_event(EventKind.LOST, 900, reason="WorkerLost"))
    assert sample("taskflow_task_attempts_total", queue="q", reason="WorkerLost") == 1
    assert sample("taskflow_task_queue_wait_seconds_count", queue="q", priority="0") is None


def test_an_attempt_that_is_to_be_continued_is_counted_as_such() -> None:
    times = AttemptTimes(NoTracing())
    times.note(make_task(queue="polls"), make_event(EventKind.AGAIN, 900, seconds=60, runMs=5))
    assert sample("taskflow_task_attempts_total", queue="polls", reason="Again") == 1


def test_handlers_beyond_the_first_hundred_share_a_label() -> None:
    labels = [metrics.handler_label(f"h{number}") for number in range(metrics.MAX_HANDLERS + 50)]
    assert labels[: metrics.MAX_HANDLERS] == [f"h{number}" for number in range(metrics.MAX_HANDLERS)]
    assert set(labels[metrics.MAX_HANDLERS :]) == {metrics.OTHER}
    assert metrics.handler_label("h5") == "h5"


def test_series_of_a_queue_that_is_gone_are_removed() -> None:
    for queue in ("stays", "goes"):
        times = AttemptTimes(NoTracing())
        times.note(make_task(queue=queue), make_event(EventKind.FAILED, 10, reason="HandlerError", runMs=5))
    metrics.forget_queues(["stays"])
    text = generate_latest().decode()
    assert 'queue="stays"' in text
    assert 'queue="goes"' not in text


def test_depth_and_age_are_told_for_what_is_open_or_served_and_for_nothing_else() -> None:
    tasks = OpenTasks()
    queued = CREATED + timedelta(seconds=5)
    for uid, phase, spec in (
        ("a", Phase.QUEUED, {"queue": "busy"}),
        ("b", Phase.QUEUED, {"queue": "busy"}),
        ("c", Phase.RUNNING, {"queue": "busy"}),
        ("d", Phase.PENDING, {"queue": "busy", "notBefore": CREATED}),
        ("e", Phase.QUEUED, {"queue": "busy", "isolation": "Pod"}),
        ("f", Phase.QUEUED, {"queue": "busy", "array": {"count": 3}}),
        ("g", Phase.SUSPENDED, {"queue": "busy"}),
    ):
        since = queued + timedelta(seconds="abcdefg".index(uid) % 5) if phase is Phase.QUEUED else None
        tasks.add(make_task(uid, status=TaskStatus(phase=phase, reason=Reason.VALID, queued_time=since), **spec))
    registry = CollectorRegistry()
    gauges = QueueMetrics(tasks, lambda: {("team", "idle")}, now=lambda: CREATED + timedelta(seconds=65))
    registry.register(gauges)

    def depth(queue: str, state: str) -> float | None:
        return registry.get_sample_value("taskflow_queue_depth", {"namespace": "team", "queue": queue, "state": state})

    assert [depth("busy", state) for state in ("ready", "leased", "delayed")] == [4, 1, 1]
    assert [depth("idle", state) for state in ("ready", "leased", "delayed")] == [0, 0, 0]
    where = {"namespace": "team", "queue": "busy"}

    def oldest() -> float | None:
        return registry.get_sample_value("taskflow_queue_oldest_age_seconds", where)

    assert oldest() == 60
    for uid in "abf":
        tasks.close(uid, 0.0)
    # What runs in a pod of its own waits too.
    assert (depth("busy", "ready"), oldest()) == (1, 56)
    tasks.set_status("e", TaskStatus(phase=Phase.RUNNING))
    assert (depth("busy", "ready"), depth("busy", "leased"), oldest()) == (0, 2, 0)
    for uid in "cdeg":
        tasks.close(uid, 0.0)
    assert depth("busy", "ready") is None


def test_pools_are_told_of_until_they_are_gone() -> None:
    kept = PoolState(
        WorkerPool(uid="u", namespace="team", name="main", generation=1, spec=WorkerPoolSpec(queues=("default",))),
        PoolFacts(figures=PoolFigures(Demand(ready=3, leased=2, due_soon=1), slots=6, busy=2)),
        {"desiredReplicas": 4, "readyReplicas": 2},
    )
    pools = {("team", "main"): kept}
    registry = CollectorRegistry()
    registry.register(PoolMetrics(pools))

    def told() -> list[float | None]:
        where = {"namespace": "team", "pool": "main"}
        return [
            registry.get_sample_value("taskflow_pool_replicas", where | {"kind": "desired"}),
            registry.get_sample_value("taskflow_pool_replicas", where | {"kind": "ready"}),
            registry.get_sample_value("taskflow_pool_slots", where),
            registry.get_sample_value("taskflow_pool_slots_busy", where),
            registry.get_sample_value("taskflow_pool_demand_slots", where),
        ]

    assert told() == [4, 2, 6, 2, 6]
    del pools["team", "main"]
    assert told() == [None] * 5


def ours() -> dict[str, MetricWrapperBase]:
    return {name: metric for name, metric in vars(metrics).items() if isinstance(metric, MetricWrapperBase)}


@pytest.mark.parametrize("name", sorted(ours()))
def test_a_metric_keeps_the_rules_of_prometheus_and_ours(name: str) -> None:
    """What `promtool check metrics` looks for, and our own bound on labels."""
    (family,) = ours()[name].describe()
    assert re.fullmatch(r"taskflow_[a-z0-9]+(_[a-z0-9]+)*", family.name)
    assert not family.name.endswith(("_count", "_sum", "_bucket", "_total", "_milliseconds"))
    assert family.documentation.endswith(".")
    labels = set(ours()[name]._labelnames)
    assert not labels & {"uid", "name", "task", "pod", "worker", "user", "le", "quantile"}
    if family.type == "histogram":
        assert family.name.endswith("_seconds")
        assert len(ours()[name]._upper_bounds) <= 16  # type: ignore[attr-defined]


def test_the_waits_and_runs_that_matter_fall_within_the_buckets() -> None:
    assert (metrics.WAITS[0], metrics.WAITS[-1]) == (0.005, 6 * 3600)
    assert (metrics.RUNS[0], metrics.RUNS[-1]) == (0.01, 24 * 3600)
