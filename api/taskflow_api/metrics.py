"""What a process of the REST API counts. Labels are bounded: never a user, a namespace or a path as it was sent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
"""Of the API alone: it serves nothing that the operator counts."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
REQUESTS = Histogram(
    "http_server_request_duration_seconds",
    "From a request's arrival to the end of its answer, by the template of its route (empty: none fits). Streams last as long as they are open.",
    ["http_request_method", "http_route", "http_response_status_code"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
CACHE = Counter(
    "taskflow_cache_requests",
    "Reads that looked into the cache: result hit, miss, bypass (the history changes at this moment), unavailable (no answer).",
    ["result"],
    registry=REGISTRY,
)
LIMITED = Counter("taskflow_rate_limited", "Requests refused by a limit, by its name.", ["limit"], registry=REGISTRY)
UNCOUNTED = Counter(
    "taskflow_limits_fallback",
    "Requests while the limits' Redis was away: kind read passed uncounted; write, login and registration were counted by this process alone.",
    ["kind"],
    registry=REGISTRY,
)
STREAMS = Gauge("taskflow_streams_open", "Event streams and followed logs that are open.", registry=REGISTRY)
