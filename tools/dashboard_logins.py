"""The Grafana board of the provisioner."""

from __future__ import annotations

from dashboard_boards import Board, Panel, quantiles, rate

PROVISIONER = Board(
    "taskflow-provisioner",
    "TaskFlow / Logins of workers",
    {},
    (
        Panel(
            "Namespaces",
            "Namespaces with workers, by the state of their logins.",
            "short",
            {"{{state}}": "max by (state) (taskflow_provisioner_namespaces)"},
        ),
        Panel(
            "Changes",
            "Logins made, rotated, retired and taken back.",
            "ops",
            {"{{change}}": rate("taskflow_provisioner_logins_total", "change")},
        ),
        Panel(
            "Repairs",
            "Users that were missing or changed.",
            "ops",
            {"{{store}}": rate("taskflow_provisioner_repairs_total", "store")},
        ),
        Panel(
            "Failures",
            "Rounds and namespaces that failed.",
            "ops",
            {"{{kind}}": rate("taskflow_provisioner_failures_total", "kind")},
        ),
        Panel(
            "Time of a round",
            "One comparison of everything.",
            "s",
            quantiles("taskflow_provisioner_round_seconds", ""),
        ),
    ),
)
