"""The Grafana dashboards of charts/taskflow: four boards in the classic schema, which every Grafana since 9 reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "charts" / "taskflow" / "files" / "dashboards"
SCHEMA_VERSION = 39
WIDTH, HEIGHT, PER_ROW = 8, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One graph, or one number.

    Args:
        title: what it shows.
        description: how to read it, in a sentence.
        unit: Grafana's id of the unit.
        queries: PromQL by the legend of its series.
        kind: Grafana's type of panel.
    """

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"


@dataclass(frozen=True)
class Board:
    """One dashboard: its uid never changes, so that links to it go on working."""

    uid: str
    title: str
    variables: dict[str, str]
    """The metric and label whose values a variable takes, such as `taskflow_queue_depth, queue`, by its name."""
    panels: tuple[Panel, ...]


def quantiles(metric: str, by: str, where: str = "") -> dict[str, str]:
    """Median and 99th percentile of a histogram, by a label besides `le`."""
    legend = f"{{{{{by}}}}} " if by else ""
    group = f"le, {by}" if by else "le"
    rate = f"sum by ({group}) (rate({metric}_bucket{where}[$__rate_interval]))"
    return {f"{legend}p50": f"histogram_quantile(0.5, {rate})", f"{legend}p99": f"histogram_quantile(0.99, {rate})"}


def rate(metric: str, by: str, where: str = "") -> str:
    """Per second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))"


_NS = '{namespace=~"$namespace"}'
_FAILED = '{namespace=~"$namespace",outcome="Failed"}'
_NSQ = '{namespace=~"$namespace",queue=~"$queue"}'
_Q = '{queue=~"$queue"}'
_P = '{namespace=~"$namespace",pool=~"$pool"}'

OVERVIEW = Board(
    "taskflow-overview",
    "TaskFlow / Overview",
    {"namespace": "taskflow_queue_depth, namespace"},
    (
        Panel("Operator that acts", "1 while one pod holds the Lease; 0 means that nothing is started.", "short", {"leaders": "sum(taskflow_leader)"}, "stat"),
        Panel("Open Tasks", "Tasks that are not finished, in the whole installation.", "short", {"open": "max(taskflow_tasks_open)"}, "stat"),
        Panel("Longest wait", "Of the Task that waits longest for a worker.", "s", {"{{namespace}}/{{queue}}": f"topk(5, max by (namespace, queue) (taskflow_queue_oldest_age_seconds{_NS}))"}),
        Panel("Created", "Tasks a second, by namespace.", "ops", {"{{namespace}}": rate("taskflow_tasks_created_total", "namespace", _NS)}),
        Panel("Finished", "Tasks a second, by outcome.", "ops", {"{{outcome}}": rate("taskflow_tasks_finished_total", "outcome", _NS)}),
        Panel("Part that fails", "Failed Tasks of all that finished.", "percentunit", {"{{namespace}}": f'{rate("taskflow_tasks_finished_total", "namespace", _FAILED)} / {rate("taskflow_tasks_finished_total", "namespace", _NS)}'}),
        Panel("Open Tasks by state", "Where they are: delayed and pending ones wait for something else than a worker.", "short", {"{{state}}": f"sum by (state) (taskflow_queue_depth{_NS})"}),
        Panel("From creation to the first start", "Whole seconds, as Kubernetes keeps the time of creation.", "s", quantiles("taskflow_task_start_latency_seconds", "queue")),
        Panel("History behind by", "Age of the oldest event that is not in PostgreSQL (pg) or in a status (cr).", "s", {"{{consumer}}": "max by (consumer) (taskflow_mirror_lag_seconds)"}),
    ),
)  # fmt: skip

QUEUES = Board(
    "taskflow-queues",
    "TaskFlow / Queues and pools",
    {
        "namespace": "taskflow_queue_depth, namespace",
        "queue": "taskflow_queue_depth, queue",
        "pool": "taskflow_pool_replicas, pool",
    },
    (
        Panel("Depth", "Open Tasks of each queue, by state.", "short", {"{{queue}} {{state}}": f"sum by (queue, state) (taskflow_queue_depth{_NSQ})"}),
        Panel("Longest wait", "Of the Task that waits longest for a worker.", "s", {"{{namespace}}/{{queue}}": f"max by (namespace, queue) (taskflow_queue_oldest_age_seconds{_NSQ})"}),
        Panel("Wait in the queue", "Of each attempt, until a worker claims it.", "s", quantiles("taskflow_task_queue_wait_seconds", "queue", _Q)),
        Panel("Attempts", "That ended, a second, by reason.", "ops", {"{{queue}} {{reason}}": rate("taskflow_task_attempts_total", "queue, reason", _Q)}),
        Panel("Run time", "Of each attempt, by handler.", "s", quantiles("taskflow_task_run_seconds", "handler", _Q)),
        Panel("Items of arrays", "That ended and stand in PostgreSQL, a second.", "ops", {"{{queue}} {{outcome}}": rate("taskflow_array_items_total", "queue, outcome", _Q)}),
        Panel("Pods", "Desired by the specification or by scaling, and ready.", "short", {"{{pool}} {{kind}}": f"sum by (pool, kind) (taskflow_pool_replicas{_P})"}),
        Panel("Slots", "What the queues want, what the workers have, what is busy.", "short", {
            "{{pool}} wanted": f"sum by (pool) (taskflow_pool_demand_slots{_P})",
            "{{pool}} there": f"sum by (pool) (taskflow_pool_slots{_P})",
            "{{pool}} busy": f"sum by (pool) (taskflow_pool_slots_busy{_P})",
        }),
        Panel("Scaling", "Changes of the number of pods, a second.", "ops", {"{{direction}} {{reason}}": rate("taskflow_scale_decisions_total", "direction, reason")}),
        Panel("From demand to pods", "Until the Deployment is patched.", "s", quantiles("taskflow_scale_reaction_seconds", "")),
        Panel("Lost and refused", "Leases that ran out, messages sent again, second deliveries and late ends that were refused.", "ops", {
            "{{queue}} lease ran out": rate("taskflow_leases_expired_total", "queue", _Q),
            "{{queue}} sent again": rate("taskflow_messages_republished_total", "queue", _Q),
            "{{queue}} second delivery": rate("taskflow_task_duplicates_fenced_total", "queue", _Q),
            "{{queue}} late end": rate("taskflow_task_stale_finishes_total", "queue", _Q),
        }),
        Panel("Workers replaced", "Because they were silent, or deaf to what waited for them.", "ops", {"{{fault}}": rate("taskflow_workers_replaced_total", "fault")}),
    ),
)  # fmt: skip

OPERATOR = Board(
    "taskflow-operator",
    "TaskFlow / Operator",
    {},
    (
        Panel("Passes", "Median and 99th percentile of one pass of each loop.", "s", quantiles("taskflow_reconcile_seconds", "kind")),
        Panel("Unexpected errors", "That a loop went on over; the log has each of them.", "ops", {"{{kind}}": rate("taskflow_reconcile_errors_total", "kind")}),
        Panel("Status writes", "By what became of them.", "ops", {"{{result}}": rate("taskflow_status_writes_total", "result")}),
        Panel("Requests to the API server", "By verb and code; code 0 is no answer.", "ops", {"{{verb}} {{code}}": rate("taskflow_k8s_requests_total", "verb, code")}),
        Panel("Silence on the watch", "Since the API server last sent something; at most a minute while all is well.", "s", {"tasks": "max(taskflow_watch_contact_age_seconds and taskflow_leader == 1)"}),
        Panel("Watches begun again", "Other than in order.", "ops", {"{{watch}}": rate("taskflow_watch_ends_total", "watch")}),
        Panel("Without", "How long it has been without Redis, PostgreSQL, the API server or its rights there; 0 while all is well.", "s", {"{{dependency}}": "max by (dependency) (taskflow_dependency_away_seconds)"}),
        Panel("Events not done with", "Of each reader of the stream.", "short", {"{{consumer}}": "max by (consumer) (taskflow_stream_pending)"}),
        Panel("Behind by", "Age of the oldest of them.", "s", {"{{consumer}}": "max by (consumer) (taskflow_mirror_lag_seconds)"}),
        Panel("Kubernetes Events", "Posted, dropped by the rate limit, or failed.", "ops", {"{{result}}": rate("taskflow_k8s_events_total", "result")}),
        Panel("CPU", "Of a core.", "percentunit", {"{{pod}}": "sum by (pod) (rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) taskflow_leader)"}),
        Panel("Memory", "Resident.", "bytes", {"{{pod}}": "sum by (pod) (process_resident_memory_bytes and on (instance) taskflow_leader)"}),
        Panel("Version", "Of each operator that is read.", "short", {"{{version}}": "count by (version) (taskflow_build_info)"}, "stat"),
    ),
)  # fmt: skip

API = Board(
    "taskflow-api",
    "TaskFlow / REST API and webhooks",
    {},
    (
        Panel("Requests", "By route.", "reqps", {"{{http_request_method}} {{http_route}}": rate("http_server_request_duration_seconds_count", "http_request_method, http_route")}),
        Panel("Errors", "Answers of 500 and more, of all.", "percentunit", {"errors": 'sum(rate(http_server_request_duration_seconds_count{http_response_status_code=~"5.."}[$__rate_interval])) / sum(rate(http_server_request_duration_seconds_count[$__rate_interval]))'}),
        Panel("Time to answer", "Streams last as long as they are open.", "s", quantiles("http_server_request_duration_seconds", "http_request_method")),
        Panel("Cache", "Reads that looked into it, by what they found.", "reqps", {"{{result}}": rate("taskflow_cache_requests_total", "result")}),
        Panel("Refused by limits", "By the limit's name.", "reqps", {"{{limit}}": rate("taskflow_rate_limited_total", "limit")}),
        Panel("While the limits' Redis is away", "Reads pass uncounted, writes are counted by each process.", "reqps", {"{{kind}}": rate("taskflow_limits_fallback_total", "kind")}),
        Panel("Streams", "Event streams and followed logs that are open.", "short", {"open": "sum(taskflow_streams_open)"}),
        Panel("Deliveries of webhooks", "Attempts, by outcome.", "ops", {"{{outcome}}": rate("taskflow_webhook_deliveries_total", "outcome")}),
        Panel("Webhooks that wait", "For an attempt, and how long the first of them has been due.", "short", {
            "waiting": "max(taskflow_webhook_deliveries_pending)",
            "due for, s": "max(taskflow_webhook_oldest_due_seconds)",
        }),
        Panel("Time of an attempt", "From resolving the name to the end of the answer.", "s", quantiles("taskflow_webhook_attempt_seconds", "")),
    ),
)  # fmt: skip

BOARDS = (OVERVIEW, QUEUES, OPERATOR, API)


def dashboard(board: Board) -> dict[str, Any]:
    """The board as Grafana imports it."""
    variables = [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
    return {
        "id": None,
        "uid": board.uid,
        "title": board.title,
        "tags": ["taskflow"],
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["taskflow"], "title": "TaskFlow", "asDropdown": True, "keepTime": True}
        ],
        "templating": {"list": [*variables, *(_variable(*each) for each in board.variables.items())]},
        "panels": [_panel(number, panel) for number, panel in enumerate(board.panels)],
    }


def _variable(name: str, values: str) -> dict[str, Any]:
    query = {"query": f"label_values({values})", "refId": name}
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": {"x": WIDTH * (number % PER_ROW), "y": HEIGHT * (number // PER_ROW), "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def files() -> dict[Path, str]:
    """Content of each generated file."""
    return {FOLDER / f"{board.uid}.json": json.dumps(dashboard(board), indent=1) + "\n" for board in BOARDS}
