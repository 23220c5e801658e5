"""Generates the Grafana dashboards of charts/taskflow: six dashboards in the classic schema of Grafana 9 and newer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dashboard_boards import BOARDS, Board, Panel
from dashboard_logins import PROVISIONER
from dashboard_schedules import SCHEDULES

FOLDER = Path(__file__).resolve().parent.parent / "charts" / "taskflow" / "files" / "dashboards"
SCHEMA_VERSION = 39
WIDTH, HEIGHT, PER_ROW = 8, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(board: Board) -> dict[str, Any]:
    """The board as Grafana imports it."""
    variables = [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
    return {
        "id": None,
        "uid": board.uid,
        "title": board.title,
        "tags": ["taskflow"],
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["taskflow"], "title": "TaskFlow", "asDropdown": True, "keepTime": True}
        ],
        "templating": {"list": [*variables, *(_variable(*each) for each in board.variables.items())]},
        "panels": [_panel(number, panel) for number, panel in enumerate(board.panels)],
    }


def _variable(name: str, values: str) -> dict[str, Any]:
    query = {"query": f"label_values({values})", "refId": name}
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": {"x": WIDTH * (number % PER_ROW), "y": HEIGHT * (number // PER_ROW), "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def files() -> dict[Path, str]:
    """Content of each generated file."""
    boards = (*BOARDS, SCHEDULES, PROVISIONER)
    return {FOLDER / f"{board.uid}.json": json.dumps(dashboard(board), indent=1) + "\n" for board in boards}
