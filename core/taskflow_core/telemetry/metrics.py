"""Every metric's name, labels and buckets, in one place. Labels are bounded: never a uid, a name or a user.

Only the operator keeps these: it sees the life of every Task, and outlives the workers. `docs/reference/metrics.md` is
generated from this module.
"""

from __future__ import annotations

from collections.abc import Collection
from threading import Lock

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 21600)
"""5 ms to 6 h: waiting for a worker."""
RUNS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400)
"""10 ms to 24 h: running."""
PASSES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""5 ms to a minute: one pass of a loop."""
MAX_HANDLERS = 100
OTHER = "other"
UNKNOWN = "unknown"
"""Queue of an attempt whose Task is not known any more."""

CREATED = Counter("taskflow_tasks_created", "Tasks seen for the first time.", ["namespace", "queue", "handler"])
FINISHED = Counter("taskflow_tasks_finished", "Tasks that finished.", ["namespace", "queue", "handler", "outcome"])
ITEMS = Counter(
    "taskflow_array_items", "Items of arrays that ended, and are stored in PostgreSQL.", ["queue", "outcome"]
)
OPEN = Gauge("taskflow_tasks_open", "Tasks that are not finished.")
QUEUE_WAIT = Histogram(
    "taskflow_task_queue_wait_seconds",
    "From entering the queue to the claim by a worker, of each attempt.",
    ["queue", "priority"],
    buckets=WAITS,
)
START_LATENCY = Histogram(
    "taskflow_task_start_latency_seconds",
    "From the creation of the Task (whole seconds, as the API server keeps it) to the start of its first attempt.",
    ["queue"],
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 21600),
)
RUN = Histogram(
    "taskflow_task_run_seconds",
    "From the start to the end of each attempt.",
    ["queue", "handler", "outcome"],
    buckets=RUNS,
)
TOTAL = Histogram(
    "taskflow_task_total_seconds",
    "From the creation to the end of each Task.",
    ["queue", "handler", "outcome"],
    buckets=RUNS,
)
ATTEMPTS = Counter("taskflow_task_attempts", "Attempts that ended, by the reason.", ["queue", "reason"])
DUPLICATES = Counter(
    "taskflow_task_duplicates_fenced", "Second deliveries of an attempt, refused by its claim.", ["queue"]
)
STALE = Counter("taskflow_task_stale_finishes", "Outcomes refused because the attempt had been taken away.", ["queue"])
LOST = Counter("taskflow_leases_expired", "Leases of workers that ran out.", ["queue"])
REPUBLISHED = Counter("taskflow_messages_republished", "Messages that were lost and sent again.", ["queue"])

DEPTH = ("taskflow_queue_depth", "Open Tasks by where they are.", ("namespace", "queue", "state"))
"""A gauge, computed when it is read: name, help, labels. States: `ready`, `leased`, `delayed`."""
OLDEST = (
    "taskflow_queue_oldest_age_seconds",
    "How long the longest waiting Task of the queue waits for a worker; 0 when none does.",
    ("namespace", "queue"),
)
"""Likewise."""

POOL_REPLICAS = (
    "taskflow_pool_replicas",
    "Worker pods of the pool: desired by its specification or by scaling, ready by its status.",
    ("namespace", "pool", "kind"),
)
"""Likewise. Kinds: `desired`, `ready`."""
POOL_SLOTS = (
    "taskflow_pool_slots",
    "Attempts that the workers of the pool which report can run at a time.",
    ("namespace", "pool"),
)
"""Likewise."""
POOL_BUSY = (
    "taskflow_pool_slots_busy",
    "Attempts that the workers of the pool hold, by their own account.",
    ("namespace", "pool"),
)
"""Likewise."""
POOL_DEMAND = (
    "taskflow_pool_demand_slots",
    "Slots that the pool's queues need: queued, running, and due within seconds. The scaler and autoscalers use it.",
    ("namespace", "pool"),
)
"""Likewise."""
SCHEDULE_NEXT = (
    "taskflow_schedule_next_timestamp_seconds",
    "When the next run of a namespace's TaskSchedules is to be created, at the latest (Unix time); it is late if past.",
    ("namespace",),
)
"""Likewise."""
SCHEDULE_LATE = (
    "taskflow_schedule_late_seconds",
    "How long the next tick of the TaskSchedule has been due; only of those that are more than 10 s late.",
    ("namespace", "schedule"),
)
"""Likewise; of at most 1,000 schedules."""
SCHEDULE_STALLED = (
    "taskflow_schedule_stalled",
    "1 for a TaskSchedule that runs nothing until its user changes it.",
    ("namespace", "schedule", "reason"),
)
"""Likewise; of at most 1,000 schedules."""
COMPUTED = (
    DEPTH,
    OLDEST,
    POOL_REPLICAS,
    POOL_SLOTS,
    POOL_BUSY,
    POOL_DEMAND,
    SCHEDULE_NEXT,
    SCHEDULE_LATE,
    SCHEDULE_STALLED,
)

SCHEDULE_TICKS = Counter(
    "taskflow_schedule_ticks",
    "Ticks of TaskSchedules: created a Task, skipped by the concurrency policy, missed, or refused at the first try.",
    ["namespace", "outcome"],
)
SCHEDULE_DELAY = Histogram(
    "taskflow_schedule_delay_seconds",
    "From the tick of a TaskSchedule, with its jitter, until its Task was created.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400),
)

SCALE_DECISIONS = Counter(
    "taskflow_scale_decisions",
    "Changes of a pool's number of pods by scaling: direction up or down.",
    ["direction", "reason"],
)
SCALE_REACTION = Histogram(
    "taskflow_scale_reaction_seconds",
    "From the first Task that asked for more pods to the patched Deployment.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60),
)
WORKERS_REPLACED = Counter(
    "taskflow_workers_replaced",
    "Workers deleted because they did not report (silent) or took no work that waited for them (deaf).",
    ["fault"],
)

RECONCILE = Histogram(
    "taskflow_reconcile_seconds",
    "One pass, also a failed one: dispatch of a batch of Tasks, tick over ledger and leases (each second), resync by a "
    "list of all open Tasks, pool to its Deployment and status.",
    ["kind"],
    buckets=PASSES,
)
ERRORS = Counter(
    "taskflow_reconcile_errors",
    "Unexpected errors that a loop went on over; the log has each of them.",
    ["kind"],
)
WATCH_ENDS = Counter(
    "taskflow_watch_ends",
    "Times that a watch failed and was started again: of Tasks, or Kopf's of pools and Deployments.",
    ["watch"],
)
WATCH_AGE = Gauge(
    "taskflow_watch_contact_age_seconds",
    "Since the API server last sent something on the watch of Tasks; normally at most a minute (bookmarks).",
)
DEPENDENCY_UNAVAILABLE = Gauge(
    "taskflow_dependency_away_seconds",
    "How long redis, api-server, postgres or the rights at the API server have been unavailable; 0 if they are not.",
    ["dependency"],
)
K8S_REQUESTS = Counter(
    "taskflow_k8s_requests",
    "Requests to the API server, Kopf's not included; code 0 is no answer.",
    ["verb", "code"],
)
K8S_EVENTS = Counter(
    "taskflow_k8s_events", "Kubernetes Events: posted, dropped by the rate limit, or failed.", ["result"]
)
CLOCK_SKEW = Gauge(
    "taskflow_api_server_clock_skew_seconds",
    "How far the operator's clock is at least ahead of the API server's, or behind it if negative.",
)
LEADER = Gauge("taskflow_leader", "1 while this process holds the Lease and acts.")
STATUS_WRITES = Counter(
    "taskflow_status_writes",
    "Status writes of Tasks and TaskSchedules: done, avoided (equal or replaced by a later one), postponed, gone, "
    "refused.",
    ["result"],
)
EVENTS_REFUSED = Counter(
    "taskflow_events_refused",
    "Entries of the event streams that are no events: what a worker wrote is not believed.",
    ["consumer", "reason"],
)
NAMESPACES_SET_ASIDE = Counter(
    "taskflow_namespaces_set_aside",
    "Namespaces whose event streams were broken, and made anew from their Tasks.",
    ["namespace"],
)
MIRROR_LAG = Gauge(
    "taskflow_mirror_lag_seconds", "Age of the oldest event that a consumer group has not acknowledged.", ["consumer"]
)
STREAM_PENDING = Gauge("taskflow_stream_pending", "Events that a consumer group has not acknowledged.", ["consumer"])
BUILD = Gauge("taskflow_build_info", "Always 1, with the version.", ["version"])

_BY_QUEUE: tuple[MetricWrapperBase, ...] = (
    CREATED,
    FINISHED,
    QUEUE_WAIT,
    START_LATENCY,
    RUN,
    TOTAL,
    ATTEMPTS,
    DUPLICATES,
    STALE,
    LOST,
    REPUBLISHED,
)
_handlers: set[str] = set()
_queues: set[str] = set()
_lock = Lock()


def handler_label(name: str) -> str:
    """The handler, while fewer than `MAX_HANDLERS` others were seen before it; else `other`."""
    with _lock:
        if name in _handlers:
            return name
        if len(_handlers) >= MAX_HANDLERS:
            return OTHER
        _handlers.add(name)
        return name


def queue_label(name: str) -> str:
    """The queue, noted so that `forget_queues` can remove its series."""
    _queues.add(name)
    return name


def known_queues() -> frozenset[str]:
    """Queues that have series."""
    return frozenset(_queues)


def forget_queues(keep: Collection[str]) -> None:
    """Remove the series of all queues but these."""
    for queue in _queues - set(keep) - {UNKNOWN}:
        _queues.discard(queue)
        for metric in _BY_QUEUE:
            metric.remove_by_labels({"queue": queue})
