"""The Grafana dashboard of schedules."""

from __future__ import annotations

from dashboard_boards import Board, Panel, quantiles, rate

_NS = '{namespace=~"$namespace"}'

SCHEDULES = Board(
    "taskflow-schedules",
    "TaskFlow / Schedules",
    {"namespace": "taskflow_schedule_ticks_total, namespace"},
    (
        Panel(
            "Ticks",
            "Ticks per second by what became of them: a Task, skipped, missed, or refused by the API server.",
            "ops",
            {"{{outcome}}": rate("taskflow_schedule_ticks_total", "outcome", _NS)},
        ),
        Panel(
            "Did not run",
            "Ticks within an hour that became no Task.",
            "short",
            {
                "{{namespace}} {{outcome}}": (
                    "sum by (namespace, outcome) (increase(taskflow_schedule_ticks_total"
                    '{namespace=~"$namespace",outcome!="created"}[1h]))'
                )
            },
        ),
        Panel(
            "Delay",
            "From the tick, with its jitter, until its Task was created.",
            "s",
            quantiles("taskflow_schedule_delay_seconds", ""),
        ),
        Panel(
            "Late",
            "How long the next tick of a schedule has been due; only of those that are late.",
            "s",
            {"{{namespace}}/{{schedule}}": f"max by (namespace, schedule) (taskflow_schedule_late_seconds{_NS})"},
        ),
        Panel(
            "Stalled",
            "Schedules that run nothing until somebody changes them, by reason.",
            "short",
            {
                "{{namespace}}/{{schedule}} {{reason}}": (
                    f"max by (namespace, schedule, reason) (taskflow_schedule_stalled{_NS})"
                )
            },
        ),
        Panel(
            "Until the next tick",
            "Of each namespace; below 0 something is late.",
            "s",
            {"{{namespace}}": f"min by (namespace) (taskflow_schedule_next_timestamp_seconds{_NS}) - time()"},
        ),
        Panel(
            "Clock",
            "How far the operator's clock is at least ahead of the API server's, or behind it if negative; normally 0.",
            "s",
            {"{{pod}}": "max by (pod) (taskflow_api_server_clock_skew_seconds and on (instance) taskflow_leader)"},
        ),
    ),
)
