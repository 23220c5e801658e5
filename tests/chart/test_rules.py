"""The alerts: of metrics that there are, valid, and each fires when it should and stays silent when not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import DEV, ROOT, one, program, render, shape


def _answers(code: str) -> str:
    """The series of the REST API's answers with that code."""
    labels = f'http_request_method="GET",http_route="/",http_response_status_code="{code}"'
    return f"http_server_request_duration_seconds_count{{{labels}}}"


def _leader(pod: str, namespace: str = "taskflow-system") -> str:
    """The series of an operator's pod, with the labels that Prometheus adds."""
    return f'taskflow_leader{{pod="{pod}",namespace="{namespace}"}}'


# What each alert is about: series at 60 s steps that set it off within 20 minutes (or 59), and series that do not.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "TaskflowNoLeader": (
        {_leader("a"): "0x20", _leader("b"): "0x20", _leader("c", "other-system"): "1x20"},
        {_leader("a"): "0x20", _leader("b"): "1x20"},
    ),
    "TaskflowDependencyAway": (
        {'taskflow_dependency_away_seconds{dependency="redis"}': "0+60x20"},
        {
            'taskflow_dependency_away_seconds{dependency="redis"}': "0 30 0x20",
            'taskflow_dependency_away_seconds{dependency="postgres"}': "0x20",
        },
    ),
    "TaskflowQueueWaits": (
        {'taskflow_queue_oldest_age_seconds{namespace="n",queue="q"}': "301+60x20"},
        {'taskflow_queue_oldest_age_seconds{namespace="n",queue="q"}': "299x20"},
    ),
    "TaskflowLoginsFail": (
        {'taskflow_provisioner_namespaces{state="failing"}': "1x20"},
        {
            'taskflow_provisioner_namespaces{state="failing"}': "0x20",
            'taskflow_provisioner_namespaces{state="foreign"}': "1x20",
        },
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
    "TaskflowPoolNotReady": (
        {
            'taskflow_pool_replicas{namespace="n",pool="p",kind="desired"}': "3x20",
            'taskflow_pool_replicas{namespace="n",pool="p",kind="ready"}': "2x20",
        },
        {
            'taskflow_pool_replicas{namespace="n",pool="p",kind="desired"}': "3x20",
            'taskflow_pool_replicas{namespace="n",pool="p",kind="ready"}': "2x10 3x10",
        },
    ),
    "TaskflowScheduleStalled": (
        {'taskflow_schedule_stalled{namespace="n",schedule="s",reason="InvalidSchedule"}': "1x20"},
        # Somebody corrected it within five minutes.
        {'taskflow_schedule_stalled{namespace="n",schedule="s",reason="InvalidSchedule"}': "1x3 stale"},
    ),
    "TaskflowScheduleLate": (
        {'taskflow_schedule_late_seconds{namespace="n",schedule="s"}': "11+60x20"},
        {
            'taskflow_schedule_late_seconds{namespace="n",schedule="s"}': "15x20",
            'taskflow_schedule_late_seconds{namespace="n",schedule="t"}': "30 90 stale",
        },
    ),
    "TaskflowMessagesLost": (
        {'taskflow_messages_republished_total{queue="q"}': "0+5x20"},
        {'taskflow_messages_republished_total{queue="q"}': "0+0.5x20"},
    ),
    "TaskflowWatchSilent": (
        {"taskflow_watch_contact_age_seconds": "0+60x20", "taskflow_leader": "1x20"},
        # That of a standby grows, since it does not watch.
        {"taskflow_watch_contact_age_seconds": "0+60x20", "taskflow_leader": "0x20"},
    ),
    "TaskflowApiServerRefuses": (
        {'taskflow_k8s_requests_total{verb="patch",code="500"}': "0+60x20"},
        {
            'taskflow_k8s_requests_total{verb="patch",code="200"}': "0+600x20",
            'taskflow_k8s_requests_total{verb="get",code="404"}': "0+60x20",
            'taskflow_k8s_requests_total{verb="patch",code="500"}': "0+1x20",
        },
    ),
    "TaskflowApiErrors": (
        {_answers("500"): "0+2x20", _answers("200"): "0+98x20"},
        # Long enough ago that only the longer window has them.
        {_answers("500"): "0+20x10 200x10", _answers("200"): "0+100x20"},
    ),
    "TaskflowLimitsUncounted": (
        {'taskflow_limits_fallback_total{kind="read"}': "0+1x20"},
        {'taskflow_limits_fallback_total{kind="read"}': "5x20"},
    ),
    "TaskflowWebhooksLate": (
        {"taskflow_webhook_oldest_due_seconds": "301x20"},
        {"taskflow_webhook_oldest_due_seconds": "20x20"},
    ),
    "TaskflowWebhooksFail": (
        {
            'taskflow_webhook_deliveries_total{outcome="postponed"}': "0+6x60",
            'taskflow_webhook_deliveries_total{outcome="delivered"}': "0+4x60",
        },
        {
            'taskflow_webhook_deliveries_total{outcome="postponed"}': "0+4x60",
            'taskflow_webhook_deliveries_total{outcome="delivered"}': "0+6x60",
        },
    ),
}


def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = one(shape("production"), "PrometheusRule", "taskflow")["spec"]["groups"]
    return groups


def _promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, check=False)


def _reference() -> dict[str, set[str]]:
    """Labels of each series that docs/reference/metrics.md promises: of a histogram, those of its three."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs/reference/metrics.md").read_text().splitlines():
        if match := re.match(r"\| `(\w+)` \| (\w+) \| (.*?) \|", line):
            name, kind, labels = match[1], match[2], set(re.findall(r"`(\w+)`", match[3]))
            if kind == "histogram":
                found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
            else:
                found[name] = labels
    return found


def _strangers(expression: str) -> set[str]:
    """Metrics and labels of an expression that nothing of ours has."""
    reference, strange = _reference() | {name: set() for name in OF_THE_PROCESS}, set()
    # Its pod's, since it has none of its own.
    reference["taskflow_leader"] = {"namespace"}
    bare = re.sub(r'"[^"]*"', '""', expression)
    known: set[str] = set(OF_THE_SCRAPE)
    for name, matchers in re.findall(r"\b((?:taskflow|http|process)_\w+)(\{[^}]*\})?", bare):
        if name in LABELS:
            continue
        if name not in reference:
            strange.add(name)
            continue
        known |= reference[name]
        strange |= set(re.findall(r"(\w+)\s*[=!]~?", matchers)) - reference[name] - OF_THE_SCRAPE
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", bare):
        strange |= {label.strip() for label in group.split(",")} - known
    return strange


OF_THE_PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
"""What prometheus_client says of every process."""
OF_THE_SCRAPE = {"instance", "pod"}
"""Labels that Prometheus adds."""
LABELS = {label for labels in _reference().values() for label in labels}


def test_every_alert_has_a_case() -> None:
    assert {rule["alert"] for group in _groups() for rule in group["rules"]} == set(CASES)


def test_rules_are_valid_and_name_only_metrics_of_the_reference(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": _groups()}))
    done = _promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for rule in (rule for group in _groups() for rule in group["rules"]):
        assert _strangers(rule["expr"]) == set(), rule["alert"]


def test_each_alert_has_its_part_in_the_runbooks_and_each_part_its_alert() -> None:
    text = (ROOT / "docs/runbooks.md").read_text()
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    assert set(parts) == set(CASES)
    for part in parts.values():
        assert all(word in part for word in ("**Meaning.**", "**Look.**", "**Do.**"))
    for rule in (rule for group in _groups() for rule in group["rules"]):
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_an_alert_may_be_left_out_and_the_runbooks_may_be_elsewhere() -> None:
    values = "metrics.prometheusRule.enabled=true,metrics.prometheusRule.disabled={TaskflowWorkersLost}"
    rules = one(
        render(*DEV, "--set", values + ",metrics.prometheusRule.runbooks=https://wiki/page"), "PrometheusRule", ""
    )
    names = {rule["alert"] for rule in rules["spec"]["groups"][0]["rules"]}
    assert names == set(CASES) - {"TaskflowWorkersLost"}
    urls = {rule["annotations"]["runbook_url"] for rule in rules["spec"]["groups"][0]["rules"]}
    assert "https://wiki/page#taskflownoleader" in urls


BOARDS = {
    name: json.loads(text)
    for each in shape("production")
    if each["metadata"].get("labels", {}).get("grafana_dashboard")
    for name, text in each["data"].items()
}


def test_there_are_six_boards_that_know_each_other() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS) == 6
    assert all(board["tags"] == ["taskflow"] and board["id"] is None for board in BOARDS.values())


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_a_board_is_sound_and_about_metrics_that_there_are(name: str, tmp_path: Path) -> None:
    board = BOARDS[name]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {word for query in queries for word in re.findall(r"\$(\w+)", query)} - {"__rate_interval"}
    # Nothing is chosen that changes no panel.
    assert used == variables - {"datasource"}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = variable["query"]["query"].removeprefix("label_values(").rstrip(")").split(", ")
            assert label in _reference()[metric]
    plain = [re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "5m")) for query in queries]
    assert {query: found for query in plain if (found := _strangers(query))} == {}
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(plain)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    done = _promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    legends = {
        label
        for panel in board["panels"]
        for target in panel["targets"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }
    assert legends <= LABELS | OF_THE_SCRAPE


def test_every_metric_of_ours_is_shown_by_a_board() -> None:
    shown = " ".join(
        target["expr"] for board in BOARDS.values() for panel in board["panels"] for target in panel["targets"]
    )
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in _reference()}
    assert {name for name in names if name not in shown} == UNSHOWN


UNSHOWN = {
    # Of every Task, beside those of its attempts.
    "taskflow_task_total_seconds",
}


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
    minutes = 59 if rule["for"] == "30m" else 19
    check = {"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": expected}
    case = {"interval": "1m", "input_series": series, "alert_rule_test": [check]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}))
    done = _promtool("test", "rules", "test.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "kind"), [("production", "PodMonitor"), ("gateway", "ServiceMonitor")])
def test_whatever_has_metrics_is_read(name: str, kind: str) -> None:
    """Every pod with a port of that name, by the labels that it has."""
    served = {
        str(sorted(each["spec"]["selector"]["matchLabels"].items()))
        for each in shape(name)
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        if any(port["name"] == "metrics" for port in container["ports"])
    }
    read = {str(sorted(e["spec"]["selector"]["matchLabels"].items())) for e in shape(name) if e["kind"] == kind}
    assert read == served
    assert len(served) == (4 if name == "production" else 3)
