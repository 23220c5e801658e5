"""Metrics of the provisioner. `docs/reference/metrics.md` is generated from this module."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

NAMESPACES = Gauge(
    "taskflow_provisioner_namespaces",
    "Namespaces with workers: `ready`; `foreign`, whose Secret somebody else keeps; `failing`.",
    ["state"],
)
REPAIRS = Counter("taskflow_provisioner_repairs", "Users that were missing or changed, and were set again.", ["store"])
CHANGES = Counter(
    "taskflow_provisioner_logins",
    "Logins by what happened to them: `made`, `rotated`, `retired` (the former one is over), `taken-back`.",
    ["change"],
)
FAILURES = Counter("taskflow_provisioner_failures", "Rounds and namespaces that failed.", ["kind"])
ROUND = Histogram("taskflow_provisioner_round_seconds", "One comparison of everything.")
