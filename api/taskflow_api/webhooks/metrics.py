"""What a notifier counts. Labels are bounded: never an endpoint, a namespace or a URL."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
"""Of the notifier alone: it serves nothing that the operator counts."""
ATTEMPTS = Counter(
    "taskflow_webhook_deliveries",
    "Attempts to deliver: outcome delivered, postponed, failed (given up), refused (the URL may not be called), disabled (410).",
    ["outcome"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "taskflow_webhook_attempt_seconds",
    "One attempt, from resolving the name to the end of the answer.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
    registry=REGISTRY,
)
PENDING = Gauge("taskflow_webhook_deliveries_pending", "Deliveries that wait for an attempt.", registry=REGISTRY)
OLDEST_DUE = Gauge(
    "taskflow_webhook_oldest_due_seconds",
    "How long the delivery that is due longest has been due; some seconds while all is well.",
    registry=REGISTRY,
)
