"""The operator through trouble that is routine in production, and what it shows meanwhile."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from taskflow_core.domain.naming import keys_of
from taskflow_local.programs import Resolver
from tests.e2e.product import Product, condition, eventually, records, task

KEYS = keys_of("default")
pytestmark = pytest.mark.e2e

POISON_UID = "00000000-0000-4000-8000-000000000000"


def ask(product: Product, path: str) -> tuple[int, str]:
    """HTTP status and body of the operator's health server."""
    url = f"http://127.0.0.1:{product.stack.port('operator')}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(product: Product, name: str, **labels: str) -> float:
    """Sum of the series that have these labels."""
    total = 0.0
    for line in ask(product, "/metrics")[1].splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found is None or found[1] != name:
            continue
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
        if labels.items() <= pairs.items():
            total += float(found[3])
    return total


def operator_lines(product: Product, pattern: str) -> list[str]:
    return [line for line in product.stack.log("operator").read_text().splitlines() if re.search(pattern, line)]


@pytest.fixture
def operator(product: Product) -> Iterator[int]:
    """The pid of the operator, which must be the same in the end: nobody started it again."""
    pid = product.stack.pid("operator")
    assert pid is not None
    yield pid
    assert product.stack.pid("operator") == pid


def test_an_api_server_restarted_in_the_middle_of_work_costs_nothing_but_time(
    product: Product, operator: int, tmp_path: Path
) -> None:
    gate, record = tmp_path / "gate", tmp_path / "record"
    product.apply(task("over-restart", "e2e.wait_for_file", kwargs={"record": str(record), "path": str(gate)}))
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 1)
    away, refused = (
        "dependency_unavailable .*dependency=api-server ",
        "dependency_unavailable .*dependency=api-server-rights ",
    )
    before, before_refused = len(operator_lines(product, away)), len(operator_lines(product, refused))
    product.stack.stop("kube-apiserver")
    gate.touch()
    eventually(lambda: records(record, "end"), lambda ends: len(ends) == 1)
    # Long enough for the Lease to be in doubt, which stops all writes and ends nothing.
    eventually(lambda: ask(product, "/readyz")[1], lambda text: "leader in doubt" in text, 30)
    product.stack.start("kube-apiserver")
    assert product.finished("over-restart")["status"]["attempt"] == 1
    assert product.run("after-restart", "taskflow.echo", kwargs={"value": 1})["status"]["result"] == 1
    eventually(lambda: ask(product, "/readyz"), lambda answer: answer == (200, "ok\n"), 60)
    assert len(operator_lines(product, away)) == before + 1
    # An API server that has not read its RBAC rules yet refuses; whether it is asked that early is chance.
    assert len(operator_lines(product, refused)) <= before_refused + 1


def test_readyz_tells_when_redis_is_away_and_when_it_is_back(product: Product, operator: int) -> None:
    def away(dependency: str) -> float:
        return metric(product, "taskflow_dependency_away_seconds", dependency=dependency)

    product.stack.stop("redis")
    try:
        _, text = eventually(lambda: ask(product, "/readyz"), lambda answer: answer[0] == 503, 30)
        assert re.search(r"^Redis: failed: has not answered for \d+ s$", text, re.MULTILINE)
        assert ask(product, "/livez") == (200, "ok\n")
        assert away("redis") > 0
        assert away("postgres") == 0
    finally:
        product.stack.start("redis")
    eventually(lambda: ask(product, "/readyz"), lambda answer: answer == (200, "ok\n"), 30)
    eventually(lambda: away("redis"), lambda seconds: seconds == 0, 30)
    lines = ("role: ok: leader", "Redis: ok", "API server: ok", "watch: ok", "events to PostgreSQL: ok")
    eventually(lambda: ask(product, "/readyz?verbose")[1], lambda said: all(line in said for line in lines), 30)
    assert product.run("after-redis", "taskflow.echo", kwargs={"value": 2})["status"]["result"] == 2


def test_metrics_tell_of_twenty_tasks(product: Product, operator: int) -> None:
    before = {
        name: metric(product, name, queue="default")
        for name in (
            "taskflow_tasks_created_total",
            "taskflow_tasks_finished_total",
            "taskflow_task_queue_wait_seconds_count",
        )
    }
    product.apply(*(task(f"counted-{number}", "taskflow.echo", kwargs={"value": number}) for number in range(19)))
    product.apply(task("counted-bad", "taskflow.fail", retryPolicy={"maxAttempts": 1}))
    for name in (*(f"counted-{number}" for number in range(19)), "counted-bad"):
        product.finished(name)
    after = eventually(
        lambda: {name: metric(product, name, queue="default") - count for name, count in before.items()},
        lambda counts: set(counts.values()) == {20.0},
    )
    assert after["taskflow_task_queue_wait_seconds_count"] == 20
    labels = {"namespace": "default", "queue": "default"}
    # Of more handlers than an operator tells apart, the later ones are counted as "other".
    failed = (
        metric(product, "taskflow_tasks_finished_total", **labels, handler=handler, outcome="Failed")
        for handler in ("taskflow.fail", "other")
    )
    assert sum(failed) >= 1
    assert metric(product, "taskflow_task_run_seconds_count", queue="default", outcome="succeeded") >= 19
    assert metric(product, "taskflow_task_attempts_total", queue="default", reason="HandlerError") >= 1
    eventually(lambda: metric(product, "taskflow_queue_depth", **labels), lambda depth: depth == 0)
    assert metric(product, "taskflow_leader") == 1
    assert metric(product, "taskflow_build_info") == 1
    assert metric(product, "taskflow_k8s_requests_total", verb="patch", code="200") > 0
    assert metric(product, "taskflow_status_writes_total", result="done") > 0
    assert metric(product, "taskflow_mirror_lag_seconds") < 60


def test_metrics_tell_of_pools_and_of_how_long_a_pass_takes(product: Product, operator: int, tmp_path: Path) -> None:
    main = {"namespace": "default", "pool": "main"}
    assert metric(product, "taskflow_pool_replicas", **main, kind="desired") == 1
    assert metric(product, "taskflow_pool_replicas", **main, kind="ready") == 1
    assert metric(product, "taskflow_pool_slots", **main) == 2
    gate, record = tmp_path / "gate", tmp_path / "record"
    product.apply(task("occupies", "e2e.wait_for_file", kwargs={"record": str(record), "path": str(gate)}))
    eventually(lambda: metric(product, "taskflow_pool_slots_busy", **main), lambda busy: busy == 1)
    gate.touch()
    eventually(lambda: metric(product, "taskflow_pool_slots_busy", **main), lambda busy: busy == 0)
    for kind in ("dispatch", "tick", "resync", "pool"):
        eventually(lambda kind=kind: metric(product, "taskflow_reconcile_seconds_count", kind=kind), bool)  # type: ignore[misc]


def test_promtool_has_nothing_to_say_of_the_metrics(product: Product, operator: int) -> None:
    """`promtool check metrics`, which also refuses what it cannot parse; exit code 3 is a complaint of its linter."""
    _, text = ask(product, "/metrics")
    assert "taskflow_leader" in text
    promtool = str(Resolver().resolve("promtool"))

    def check(metrics: str) -> subprocess.CompletedProcess[str]:
        arguments = [promtool, "check", "metrics"]
        return subprocess.run(arguments, input=metrics, capture_output=True, text=True, check=False)

    found = check(text)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    assert check(text + "# TYPE taskflow_wrong counter\ntaskflow_wrong 1\n").returncode == 3


def test_a_failed_task_is_told_as_a_kubernetes_event_and_a_good_one_is_not(product: Product) -> None:
    failed = product.run("told-bad", "taskflow.fail", kwargs={"message": "no luck"}, retryPolicy={"maxAttempts": 1})
    product.run("told-good", "taskflow.echo")

    def events(name: str) -> list[dict[str, Any]]:
        selector = f"regarding.name={name},regarding.kind=Task"
        listed = product.kubectl("get", "events.events.k8s.io", "--field-selector", selector, "-o", "json")
        found: list[dict[str, Any]] = json.loads(listed)["items"]
        return found

    (event,) = eventually(lambda: events("told-bad"), lambda found: len(found) == 1)
    assert (event["type"], event["reason"]) == ("Warning", "HandlerError")
    assert "no luck" in event["note"]
    assert event["regarding"]["uid"] == failed["metadata"]["uid"]
    assert "no luck" in product.kubectl("describe", "tft", "told-bad")
    assert events("told-good") == []


def test_garbage_in_the_stream_and_in_the_ledger_stops_nothing(product: Product, operator: int) -> None:
    redis = redis_client.Redis.from_url(product.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True)
    garbage: list[dict[Any, Any]] = [
        {"nonsense": "1"},
        {"k": "no-such-kind", "uid": "u", "att": "1"},
        {"k": "succeeded", "uid": "u", "att": "one"},
        {"k": "started", "uid": POISON_UID, "att": "1", "ts": "99999999999999999999"},
        {"k": "failed", "uid": POISON_UID, "att": "1", "p": '{"reason": 5}'},
        {"k": "queued", "uid": POISON_UID, "att": "1", "p": '{"namespace": "\\u0000"}'},
        {"k": "succeeded", "uid": POISON_UID, "att": "1", "p": "[" * 5000},
    ]
    for fields in garbage:
        redis.xadd(KEYS.events, fields)
    redis.zadd(KEYS.ledger, {"no-member": 1, ":": 2, "x:y": 3})
    try:
        found = product.run("after-garbage", "taskflow.echo", kwargs={"value": 4})
        assert found["status"]["result"] == 4
        product.history("after-garbage", "Succeeded")
        for group in ("cr", "pg"):
            eventually(lambda group=group: redis.xpending(KEYS.events, group)["pending"], lambda count: count == 0, 60)  # type: ignore[misc]
    finally:
        redis.zrem(KEYS.ledger, "no-member", ":", "x:y")


def test_a_task_that_the_operator_cannot_read_fails_and_says_why(product: Product, operator: int) -> None:
    # A cluster whose CRD is older than the operator, and takes times that Python has not.
    rule = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/notBefore/x-kubernetes-validations"
    crd = product.kubectl("get", "crd", "tasks.taskflow.dev", "-o", "json")
    product.kubectl(
        "patch", "crd", "tasks.taskflow.dev", "--type=json", "-p", json.dumps([{"op": "remove", "path": rule}])
    )
    try:
        for name, time in (("year-0", "0000-01-01T00:00:00Z"), ("year-10000", "9999-12-31T23:59:59-01:00")):
            body = json.dumps(task(name, "taskflow.echo", notBefore=time))
            # The API server takes up the changed CRD a moment later.
            eventually(
                lambda body=body: product.kubectl("apply", "-f", "-", stdin=body, check=False),  # type: ignore[misc]
                lambda said: "Invalid value" not in said,
            )
            found = product.finished(name)
            assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "InvalidSpec")
            assert condition(found, "Accepted")["status"] == "False"
            assert "spec cannot be read: notBefore: " in condition(found, "Failed")["message"]
            assert product.history(name, "Failed")["reason"] == "InvalidSpec"
    finally:
        restored = json.loads(crd)["spec"]
        product.kubectl("patch", "crd", "tasks.taskflow.dev", "--type=merge", "-p", json.dumps({"spec": restored}))
    assert product.run("beside-it", "taskflow.echo", kwargs={"value": 6})["status"]["result"] == 6
    product.kubectl("delete", "tft", "year-0", "year-10000")


def test_the_trace_of_a_task_is_in_the_operators_log(product: Product) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    body = task("traced", "taskflow.echo")
    body["metadata"]["annotations"] = {"taskflow.dev/traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    product.apply(body)
    found = product.finished("traced")
    assert condition(found, "Finished")["status"] == "True"
    (line,) = eventually(
        lambda: [line for line in operator_lines(product, "task_finished") if "default/traced" in line],
        lambda lines: len(lines) == 1,
    )
    assert trace in line
    assert found["metadata"]["uid"] in line
