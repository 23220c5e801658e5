"""Metrics of the notifier. Label values are bounded: no endpoints, namespaces or URLs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
"""The registry of the notifier process."""
ATTEMPTS = Counter(
    "taskflow_webhook_deliveries",
    "Attempts by outcome: delivered, postponed, failed (given up), refused (the URL is not allowed) or disabled (410).",
    ["outcome"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "taskflow_webhook_attempt_seconds",
    "Duration of an attempt, from name resolution to the end of the response.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
    registry=REGISTRY,
)
PENDING = Gauge("taskflow_webhook_deliveries_pending", "Pending deliveries.", registry=REGISTRY)
OLDEST_DUE = Gauge(
    "taskflow_webhook_oldest_due_seconds",
    "How long the oldest due delivery has been due. A few seconds are normal.",
    registry=REGISTRY,
)
