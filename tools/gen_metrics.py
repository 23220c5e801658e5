"""docs/reference/metrics.md, from the metrics module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

from taskflow_api import metrics as of_api
from taskflow_api.webhooks import metrics as of_notifier
from taskflow_core.telemetry import metrics

INTRODUCTION = """# Metrics

The operator serves them at `/metrics` on `TASKFLOW_HEALTH_PORT`, in the text format of Prometheus, with those of the Python process
(`process_*`, `python_*`). A standby serves them too; its `taskflow_leader` is 0, so sum over instances or select by it.

No label carries a uid, a name of a Task or a user. Of handlers the first {handlers} that a process sees have a label of their own, all later
ones share `{other}`. The series of a queue are removed ten minutes after its last pool and its last open Task are gone. Counters begin
at 0 with each process, and Tasks that were open at that moment are not counted as created again.

Written by `make gen`.

| metric | type | labels | |
|---|---|---|---|
"""
API = """
## REST API

A process of the API serves these, and `process_*`, at `/metrics` on `TASKFLOW_API_METRICS_PORT`.

| metric | type | labels | |
|---|---|---|---|
"""
NOTIFIER = """
## Notifier

A notifier serves these at `/metrics` on `TASKFLOW_WEBHOOKS_HEALTH_PORT`. The gauges are of the database, so the same in each of them.

| metric | type | labels | |
|---|---|---|---|
"""
OUTRO = """
## What the ages mean

`taskflow_watch_contact_age_seconds`: the API server sends a bookmark once a minute when nothing happens, so more than that is trouble.
A watch that is silent for 90 s is begun again, and all open Tasks are listed every `TASKFLOW_RESYNC_SECONDS` (up to 5
times as long, where they are so many that it takes long), so what a dead watch misses is late by no more.
`taskflow_watch_ends_total`: `watch` is `tasks`, or `kopf` for pools and their Deployments.

`taskflow_mirror_lag_seconds` and `taskflow_stream_pending`: `consumer` is `cr` (events to the status of Tasks) or `pg` (events to PostgreSQL).

`/readyz` fails on what a restart or another instance may help against: it has not started, a loop has failed, Redis or the API server
do not answer, leadership is in doubt, no watch for 90 s, events to resources older than 60 s. What is only late, such as the
mirror in PostgreSQL, is shown as `degraded` by `/readyz?verbose`.
"""


@dataclass(frozen=True)
class Described:
    """A metric as a scraper sees it."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


def described() -> Iterator[Described]:
    """Every metric of the operator, in the order of its module."""
    yield from _of(metrics)
    for name, text, labels in metrics.COMPUTED:
        yield Described(name, "gauge", labels, text)


def _of(module: ModuleType) -> Iterator[Described]:
    for found in vars(module).values():
        if isinstance(found, MetricWrapperBase):
            kind = found._type
            name = found._name + ("_total" if kind == "counter" else "")
            buckets = tuple(bound for bound in getattr(found, "_upper_bounds", ()) if bound != float("inf"))
            yield Described(name, str(kind), tuple(found._labelnames), str(found._documentation), buckets)


def pages() -> dict[str, str]:
    """The page by its name."""
    return {"metrics": _page()}


def _page() -> str:
    introduction = INTRODUCTION.format(handlers=metrics.MAX_HANDLERS, other=metrics.OTHER)
    return introduction + _table(described()) + OUTRO + API + _table(_of(of_api)) + NOTIFIER + _table(_of(of_notifier))


def _table(found: Iterable[Described]) -> str:
    rows = []
    for each in sorted(found, key=lambda one: one.name):
        labels = ", ".join(f"`{label}`" for label in each.labels)
        words = each.help
        if each.buckets:
            words += f" Buckets: {', '.join(f'{bound:g}' for bound in each.buckets)}."
        rows.append(f"| `{each.name}` | {each.type} | {labels} | {words} |")
    return "\n".join(rows) + "\n"
