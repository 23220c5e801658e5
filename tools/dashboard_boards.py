"""The contents of the Grafana dashboards: their panels and PromQL."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One graph, or one number.

    Args:
        title: heading of the panel.
        description: how to read it.
        unit: Grafana's id of the unit.
        queries: maps the legend of each series to its PromQL.
        kind: Grafana's panel type.
    """

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"


@dataclass(frozen=True)
class Board:
    """One dashboard. Its uid never changes, so links to it keep working."""

    uid: str
    title: str
    variables: dict[str, str]
    """Maps each variable to the metric and label that provide its values, such as `taskflow_queue_depth, queue`."""
    panels: tuple[Panel, ...]


def quantiles(metric: str, by: str, where: str = "") -> dict[str, str]:
    """Median and 99th percentile of a histogram, grouped by a label."""
    legend = f"{{{{{by}}}}} " if by else ""
    group = f"le, {by}" if by else "le"
    rate = f"sum by ({group}) (rate({metric}_bucket{where}[$__rate_interval]))"
    return {f"{legend}p50": f"histogram_quantile(0.5, {rate})", f"{legend}p99": f"histogram_quantile(0.99, {rate})"}


def rate(metric: str, by: str, where: str = "") -> str:
    """Rate per second, summed by labels."""
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
        Panel(
            "Leaders",
            "1 while one pod holds the Lease; 0 means that no Task is started.",
            "short",
            {"leaders": "sum(taskflow_leader)"},
            "stat",
        ),
        Panel(
            "Open Tasks",
            "Tasks that are not finished, in the whole installation.",
            "short",
            {"open": "max(taskflow_tasks_open)"},
            "stat",
        ),
        Panel(
            "Longest wait",
            "Age of the Task that has waited longest for a worker.",
            "s",
            {"{{namespace}}/{{queue}}": f"topk(5, max by (namespace, queue) (taskflow_queue_oldest_age_seconds{_NS}))"},
        ),
        Panel(
            "Created",
            "Tasks per second, by namespace.",
            "ops",
            {"{{namespace}}": rate("taskflow_tasks_created_total", "namespace", _NS)},
        ),
        Panel(
            "Finished",
            "Tasks per second, by outcome.",
            "ops",
            {"{{outcome}}": rate("taskflow_tasks_finished_total", "outcome", _NS)},
        ),
        Panel(
            "Failure ratio",
            "Failed Tasks as a share of all finished Tasks.",
            "percentunit",
            {
                "{{namespace}}": (
                    f"{rate('taskflow_tasks_finished_total', 'namespace', _FAILED)}"
                    f" / {rate('taskflow_tasks_finished_total', 'namespace', _NS)}"
                )
            },
        ),
        Panel(
            "Open Tasks by state",
            "Delayed and pending Tasks wait for something other than a worker.",
            "short",
            {"{{state}}": f"sum by (state) (taskflow_queue_depth{_NS})"},
        ),
        Panel(
            "From creation to the first start",
            "In whole seconds, because Kubernetes stores the creation time in seconds.",
            "s",
            quantiles("taskflow_task_start_latency_seconds", "queue"),
        ),
        Panel(
            "Stream lag",
            "Age of the oldest event that is not yet in PostgreSQL (pg) or in a status (cr).",
            "s",
            {"{{consumer}}": "max by (consumer) (taskflow_mirror_lag_seconds)"},
        ),
    ),
)

QUEUES = Board(
    "taskflow-queues",
    "TaskFlow / Queues and pools",
    {
        "namespace": "taskflow_queue_depth, namespace",
        "queue": "taskflow_queue_depth, queue",
        "pool": "taskflow_pool_replicas, pool",
    },
    (
        Panel(
            "Depth",
            "Open Tasks of each queue, by state.",
            "short",
            {"{{queue}} {{state}}": f"sum by (queue, state) (taskflow_queue_depth{_NSQ})"},
        ),
        Panel(
            "Longest wait",
            "Age of the Task that has waited longest for a worker.",
            "s",
            {"{{namespace}}/{{queue}}": f"max by (namespace, queue) (taskflow_queue_oldest_age_seconds{_NSQ})"},
        ),
        Panel(
            "Wait in the queue",
            "Time until a worker claims an attempt.",
            "s",
            quantiles("taskflow_task_queue_wait_seconds", "queue", _Q),
        ),
        Panel(
            "Attempts",
            "Ended attempts per second, by reason.",
            "ops",
            {"{{queue}} {{reason}}": rate("taskflow_task_attempts_total", "queue, reason", _Q)},
        ),
        Panel(
            "Run time", "Duration of attempts, by handler.", "s", quantiles("taskflow_task_run_seconds", "handler", _Q)
        ),
        Panel(
            "Items of arrays",
            "Ended items stored in PostgreSQL, per second.",
            "ops",
            {"{{queue}} {{outcome}}": rate("taskflow_array_items_total", "queue, outcome", _Q)},
        ),
        Panel(
            "Pods",
            "Pods desired by the specification or by scaling, and ready pods.",
            "short",
            {"{{pool}} {{kind}}": f"sum by (pool, kind) (taskflow_pool_replicas{_P})"},
        ),
        Panel(
            "Slots",
            "Slots that the queues need, that the workers have, and that are busy.",
            "short",
            {
                "{{pool}} wanted": f"sum by (pool) (taskflow_pool_demand_slots{_P})",
                "{{pool}} available": f"sum by (pool) (taskflow_pool_slots{_P})",
                "{{pool}} busy": f"sum by (pool) (taskflow_pool_slots_busy{_P})",
            },
        ),
        Panel(
            "Scaling",
            "Changes of the number of pods per second.",
            "ops",
            {"{{direction}} {{reason}}": rate("taskflow_scale_decisions_total", "direction, reason")},
        ),
        Panel(
            "From demand to pods",
            "Time from a change of demand to the patched Deployment.",
            "s",
            quantiles("taskflow_scale_reaction_seconds", ""),
        ),
        Panel(
            "Lost and refused",
            "Expired leases, messages sent again, and refused second deliveries and late ends.",
            "ops",
            {
                "{{queue}} lease expired": rate("taskflow_leases_expired_total", "queue", _Q),
                "{{queue}} sent again": rate("taskflow_messages_republished_total", "queue", _Q),
                "{{queue}} second delivery": rate("taskflow_task_duplicates_fenced_total", "queue", _Q),
                "{{queue}} late end": rate("taskflow_task_stale_finishes_total", "queue", _Q),
            },
        ),
        Panel(
            "Workers replaced",
            "Workers that stopped reporting, or took no messages although some waited.",
            "ops",
            {"{{fault}}": rate("taskflow_workers_replaced_total", "fault")},
        ),
    ),
)

OPERATOR = Board(
    "taskflow-operator",
    "TaskFlow / Operator",
    {},
    (
        Panel(
            "Passes",
            "Median and 99th percentile of the duration of one pass of each loop.",
            "s",
            quantiles("taskflow_reconcile_seconds", "kind"),
        ),
        Panel(
            "Unexpected errors",
            "Errors after which a loop continued; the log has each of them.",
            "ops",
            {"{{kind}}": rate("taskflow_reconcile_errors_total", "kind")},
        ),
        Panel(
            "Status writes",
            "Status writes per second, by result.",
            "ops",
            {"{{result}}": rate("taskflow_status_writes_total", "result")},
        ),
        Panel(
            "Requests to the API server",
            "Requests per second, by verb and code; code 0 means no answer.",
            "ops",
            {"{{verb}} {{code}}": rate("taskflow_k8s_requests_total", "verb, code")},
        ),
        Panel(
            "Silence on the watch",
            "Time since the API server last sent an event or a bookmark; normally at most a minute.",
            "s",
            {"tasks": "max(taskflow_watch_contact_age_seconds and taskflow_leader == 1)"},
        ),
        Panel(
            "Watch restarts",
            "Watches that ended with an error and started again.",
            "ops",
            {"{{watch}}": rate("taskflow_watch_ends_total", "watch")},
        ),
        Panel(
            "Unavailable dependencies",
            "How long Redis, PostgreSQL, the API server or the rights there have been missing; normally 0.",
            "s",
            {"{{dependency}}": "max by (dependency) (taskflow_dependency_away_seconds)"},
        ),
        Panel(
            "Pending events",
            "Events that each reader of the stream has not acknowledged.",
            "short",
            {"{{consumer}}": "max by (consumer) (taskflow_stream_pending)"},
        ),
        Panel(
            "Stream lag",
            "Age of the oldest pending event.",
            "s",
            {"{{consumer}}": "max by (consumer) (taskflow_mirror_lag_seconds)"},
        ),
        Panel(
            "Refused events",
            "Entries that are no events, and namespaces with a broken stream; normally 0. A worker's login is abused.",
            "ops",
            {
                "{{reason}}": rate("taskflow_events_refused_total", "reason"),
                "set aside: {{namespace}}": rate("taskflow_namespaces_set_aside_total", "namespace"),
            },
        ),
        Panel(
            "Kubernetes Events",
            "Posted, dropped by the rate limit, or failed.",
            "ops",
            {"{{result}}": rate("taskflow_k8s_events_total", "result")},
        ),
        Panel(
            "CPU",
            "Share of a core.",
            "percentunit",
            {
                "{{pod}}": (
                    "sum by (pod) (rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) taskflow_leader)"
                )
            },
        ),
        Panel(
            "Memory",
            "Resident memory.",
            "bytes",
            {"{{pod}}": "sum by (pod) (process_resident_memory_bytes and on (instance) taskflow_leader)"},
        ),
        Panel(
            "Version",
            "Version of each operator that Prometheus scrapes.",
            "short",
            {"{{version}}": "count by (version) (taskflow_build_info)"},
            "stat",
        ),
    ),
)

API = Board(
    "taskflow-api",
    "TaskFlow / REST API and webhooks",
    {},
    (
        Panel(
            "Requests",
            "Requests per second, by route.",
            "reqps",
            {
                "{{http_request_method}} {{http_route}}": rate(
                    "http_server_request_duration_seconds_count", "http_request_method, http_route"
                )
            },
        ),
        Panel(
            "Errors",
            "Responses with status 500 or above, as a share of all.",
            "percentunit",
            {
                "errors": (
                    "sum(rate(http_server_request_duration_seconds_count"
                    '{http_response_status_code=~"5.."}[$__rate_interval]))'
                    " / sum(rate(http_server_request_duration_seconds_count[$__rate_interval]))"
                )
            },
        ),
        Panel(
            "Latency",
            "Streams count for as long as they are open.",
            "s",
            quantiles("http_server_request_duration_seconds", "http_request_method"),
        ),
        Panel(
            "Cache",
            "Reads that used the cache, by result.",
            "reqps",
            {"{{result}}": rate("taskflow_cache_requests_total", "result")},
        ),
        Panel(
            "Refused by limits",
            "Refused requests per second, by limit.",
            "reqps",
            {"{{limit}}": rate("taskflow_rate_limited_total", "limit")},
        ),
        Panel(
            "Connections ended",
            "Too many, too slow, or with headers that are too large, by reason.",
            "cps",
            {"{{reason}}": rate("taskflow_connections_closed_total", "reason")},
        ),
        Panel(
            "Requests without Redis",
            "While the Redis of the limits is unavailable, reads are not counted and each process counts writes.",
            "reqps",
            {"{{kind}}": rate("taskflow_limits_fallback_total", "kind")},
        ),
        Panel("Streams", "Open event streams and followed logs.", "short", {"open": "sum(taskflow_streams_open)"}),
        Panel(
            "Webhook deliveries",
            "Attempts per second, by outcome.",
            "ops",
            {"{{outcome}}": rate("taskflow_webhook_deliveries_total", "outcome")},
        ),
        Panel(
            "Waiting webhooks",
            "Deliveries that wait for an attempt, and how long the oldest has been due.",
            "short",
            {
                "waiting": "max(taskflow_webhook_deliveries_pending)",
                "due for, s": "max(taskflow_webhook_oldest_due_seconds)",
            },
        ),
        Panel(
            "Time of an attempt",
            "From resolving the name to the end of the response.",
            "s",
            quantiles("taskflow_webhook_attempt_seconds", ""),
        ),
    ),
)

BOARDS = (OVERVIEW, QUEUES, OPERATOR, API)
