"""Every metric's name and labels. Labels are bounded: never a uid, a name or a user."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

FINISHED = Counter("taskflow_tasks_finished", "Tasks that finished.", ["outcome"])
RETRIES = Counter(
    "taskflow_task_attempts", "Attempts that ended and were followed by another, by the reason.", ["reason"]
)
DUPLICATES = Counter("taskflow_task_duplicates_fenced", "Second deliveries of an attempt, refused by its claim.")
STALE = Counter("taskflow_task_stale_finishes", "Outcomes refused because the attempt had been taken away.")
LOST = Counter("taskflow_leases_expired", "Leases that ran out.")
REPUBLISHED = Counter("taskflow_messages_republished", "Messages that were lost and sent again.")
QUEUE_WAIT = Histogram(
    "taskflow_task_start_latency_seconds",
    "From the creation of the Task (whole seconds, as the API server keeps it) to the start of an attempt.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 21600),
)
OPEN = Gauge("taskflow_tasks_open", "Tasks that are not finished.")
