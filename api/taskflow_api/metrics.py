"""Metrics of the API process. Label values are bounded: no user names, namespaces or raw paths."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
"""The registry of the API process. The metrics of the operator have another one."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
REQUESTS = Histogram(
    "http_server_request_duration_seconds",
    "Time from the arrival of a request to the end of its answer, by route template (empty if no route matches). "
    "A stream counts until it is closed.",
    ["http_request_method", "http_route", "http_response_status_code"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
CACHE = Counter(
    "taskflow_cache_requests",
    "Cache lookups by result: hit, miss, bypass (the history is changing) or unavailable (Redis does not answer).",
    ["result"],
    registry=REGISTRY,
)
LIMITED = Counter(
    "taskflow_rate_limited", "Requests that a rate limit refused, by limit.", ["limit"], registry=REGISTRY
)
UNCOUNTED = Counter(
    "taskflow_limits_fallback",
    "Requests while the Redis of the rate limits was unavailable, by kind: read passed uncounted; write, login and "
    "registration were counted by this process alone.",
    ["kind"],
    registry=REGISTRY,
)
STREAMS = Gauge("taskflow_streams_open", "Open event streams and followed logs.", registry=REGISTRY)
CONNECTIONS_CLOSED = Counter(
    "taskflow_connections_closed",
    "Connections that the API refused or ended, by reason: address or total (too many), displaced (it only waited, and "
    "there was no room), slow_head, slow_body, large_head, slow_reader.",
    ["reason"],
    registry=REGISTRY,
)
