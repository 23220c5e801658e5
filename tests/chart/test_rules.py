"""The alerts: of metrics that there are, valid, and each fires when it should and stays silent when not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskflow_local.programs import Resolver
from tests.chart.rendering import ROOT, one, shape

# What each alert is about: series at 60 s steps that set it off within 20 minutes, and series that do not.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "TaskflowNoLeader": (
        {'taskflow_leader{pod="a"}': "0x20", 'taskflow_leader{pod="b"}': "0x20"},
        {'taskflow_leader{pod="a"}': "0x20", 'taskflow_leader{pod="b"}': "1x20"},
    ),
    "TaskflowQueueWaits": (
        {'taskflow_queue_oldest_age_seconds{namespace="n",queue="q"}': "301+60x20"},
        {'taskflow_queue_oldest_age_seconds{namespace="n",queue="q"}': "299x20"},
    ),
    "TaskflowTasksFail": (
        {
            'taskflow_tasks_finished_total{namespace="n",queue="q",handler="h",outcome="Failed"}': "0+10x20",
            'taskflow_tasks_finished_total{namespace="n",queue="q",handler="h",outcome="Succeeded"}': "0+100x20",
        },
        {
            'taskflow_tasks_finished_total{namespace="n",queue="q",handler="h",outcome="Failed"}': "0+4x20",
            'taskflow_tasks_finished_total{namespace="n",queue="q",handler="h",outcome="Succeeded"}': "0+100x20",
        },
    ),
    "TaskflowWorkersLost": (
        {'taskflow_leases_expired_total{queue="q"}': "0+1x20"},
        {'taskflow_leases_expired_total{queue="q"}': "7x20"},
    ),
    "TaskflowHistoryLate": (
        {'taskflow_mirror_lag_seconds{consumer="pg"}': "301x20"},
        {'taskflow_mirror_lag_seconds{consumer="pg"}': "10x20"},
    ),
    "TaskflowReconcileErrors": (
        {'taskflow_reconcile_errors_total{kind="tick"}': "0+1x20"},
        {'taskflow_reconcile_errors_total{kind="tick"}': "3x20"},
    ),
}


def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = one(shape("production"), "PrometheusRule", "taskflow")["spec"]["groups"]
    return groups


def _promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = Resolver(log=lambda _: None).resolve("promtool")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_every_alert_has_a_case() -> None:
    assert {rule["alert"] for group in _groups() for rule in group["rules"]} == set(CASES)


def test_rules_are_valid_and_name_only_metrics_of_the_reference(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": _groups()}))
    done = _promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (ROOT / "docs/reference/metrics.md").read_text()
    known = set(re.findall(r"^\| `(taskflow_\w+)`", reference, re.MULTILINE))
    named = {
        name for group in _groups() for rule in group["rules"] for name in re.findall(r"taskflow_\w+", rule["expr"])
    }
    assert named
    assert named <= known


@pytest.mark.parametrize("alert", CASES)
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays silent"])
def test_an_alert(alert: str, fires: bool, tmp_path: Path) -> None:
    (rule,) = [rule for group in _groups() for rule in group["rules"] if rule["alert"] == alert]
    # Only whether it fires: the labels and words are those of the rule, and said for people.
    plain = {key: value for key, value in rule.items() if key not in ("annotations", "labels")}
    plain["expr"] = f"count({rule['expr']})"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [plain]}]}))
    series = [{"series": name, "values": values} for name, values in CASES[alert][0 if fires else 1].items()]
    expected: list[dict[str, Any]] = [{"exp_labels": {}}] if fires else []
    check = {"eval_time": "19m", "alertname": alert, "exp_alerts": expected}
    case = {"interval": "1m", "input_series": series, "alert_rule_test": [check]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}))
    done = _promtool("test", "rules", "test.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
