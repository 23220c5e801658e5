"""Two operators on one real API server, each with a shard: namespaces, a Lease and a Redis of its own."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest
import redis
import yaml

from taskflow_core.domain import naming
from taskflow_local.stack import Stack
from tests.chart.rendering import DEV, render
from tests.integration.taskflow_operator.process import OperatorProcess, Operators, wait_for

pytestmark = pytest.mark.integration

ONE, REST = "shard-a", "shard-b"
SCOPED = "scoped-taskflow"
RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
TEMPLATE = {"spec": {"containers": [{"name": "worker"}]}}


def apply(operators: Operators, namespace: str, kind: str, name: str, **spec: Any) -> None:
    body = {"apiVersion": naming.API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    operators.kubectl("apply", "-f", "-", stdin=json.dumps({**body, "spec": spec}))


def read(operators: Operators, namespace: str, what: str, path: str) -> str:
    return operators.kubectl("get", "-n", namespace, what, "--ignore-not-found", "-o", f"jsonpath={path}")


def fill(operators: Operators, namespace: str) -> None:
    """A pool that has to grow, a Task that waits in it, one that ended and is to go at once, and one that waits for a
    pool.
    """
    scaling = {"minReplicas": 0, "maxReplicas": 3}
    apply(operators, namespace, "WorkerPool", "main", queues=["default"], scaling=scaling, template=TEMPLATE)
    apply(operators, namespace, "Task", "waits", handler="taskflow.echo")
    apply(operators, namespace, "Task", "unserved", handler="taskflow.echo", queue="nobody")
    apply(operators, namespace, "Task", "ended", handler="taskflow.echo", cancel=True, ttlSecondsAfterFinished=0)


def touched(operator: OperatorProcess) -> set[str]:
    """Namespaces in which it changed anything but its Lease."""
    found = [asked.path for asked in operator.proxy.asked if asked.method != "GET" and "/leases" not in asked.path]
    return {match[1] for path in found if (match := re.search(r"/namespaces/([^/?]+)/", path))}


def test_each_operator_cares_for_its_own_namespaces_and_touches_no_other(operators: Operators, servers: Stack) -> None:
    url = servers.component_env("operator")["TASKFLOW_REDIS_URL"]
    other = f"{url.rpartition('/')[0]}/1"
    for namespace in (ONE, REST):
        servers.add_namespace(namespace)
    first = operators.start("first", TASKFLOW_NAMESPACES=f'["{ONE}"]')
    second = operators.start(
        "second",
        TASKFLOW_NAMESPACES_LEFT_OUT=f'["{ONE}"]',
        TASKFLOW_LEADER_NAMESPACE=REST,
        TASKFLOW_REDIS_URL=other,
    )
    for each in (first, second):
        wait_for(lambda each=each: each.leads() and each.ready())  # type: ignore[misc]
    try:
        for namespace in (ONE, REST):
            fill(operators, namespace)
        for namespace in (ONE, REST):
            wait_for(lambda ns=namespace: read(operators, ns, "tft/waits", "{.status.phase}") == "Queued")  # type: ignore[misc]
            wait_for(lambda ns=namespace: read(operators, ns, "tft/unserved", "{.status.phase}") == "Pending")  # type: ignore[misc]
            wait_for(lambda ns=namespace: not read(operators, ns, "tft/ended", "{.metadata.name}"))  # type: ignore[misc]
            deployment = f"deploy/{read(operators, namespace, 'deploy', '{.items[0].metadata.name}')}"
            wait_for(lambda ns=namespace, d=deployment: read(operators, ns, d, "{.spec.replicas}") == "1")  # type: ignore[misc]
        # Whatever looks again has looked by then: lists of Tasks every 5 s, of leases and of the ledger each second.
        listed = [each.metric("taskflow_reconcile_seconds_count") for each in (first, second)]
        wait_for(lambda: first.metric("taskflow_reconcile_seconds_count") > listed[0] + 15, 60)
        assert (touched(first), touched(second)) == ({ONE}, {REST})
        for namespace, where in ((ONE, url), (REST, other)):
            uid = read(operators, namespace, "tft/waits", "{.metadata.uid}")
            with redis.Redis.from_url(where, decode_responses=True) as client:
                assert client.zrange(naming.keys_of(namespace).ledger, 0, -1) == [naming.member(uid, 1)]
    finally:
        for namespace in (ONE, REST):
            operators.kubectl("delete", "-n", namespace, "tft,tfp,deploy", "--all")
        operators.kubectl("delete", "-n", REST, "lease", "--all")


def test_a_second_operator_does_not_work_with_the_redis_of_another(operators: Operators, servers: Stack) -> None:
    servers.add_namespace(REST)
    first = operators.start("first", TASKFLOW_NAMESPACES_LEFT_OUT=f'["{REST}"]')
    wait_for(lambda: first.leads() and first.ready())
    second = operators.start("second", TASKFLOW_NAMESPACES=f'["{REST}"]', TASKFLOW_LEADER_NAMESPACE=REST)
    try:
        said = wait_for(lambda: second.lines("postponed"))
        assert "the operator of Lease taskflow-system/taskflow-operator works with this Redis" in said[0]["error"]
        assert not second.ready()
        assert first.ready()
    finally:
        operators.kubectl("delete", "-n", REST, "lease", "--all")


def test_two_operators_over_one_namespace_see_each_other_and_say_so(operators: Operators, servers: Stack) -> None:
    url = servers.component_env("operator")["TASKFLOW_REDIS_URL"]
    servers.add_namespace(ONE)
    everywhere = operators.start("everywhere")
    beside = operators.start(
        "beside",
        TASKFLOW_NAMESPACES=f'["{ONE}"]',
        TASKFLOW_LEADER_NAMESPACE=ONE,
        TASKFLOW_REDIS_URL=f"{url.rpartition('/')[0]}/1",
    )
    for each in (everywhere, beside):
        wait_for(lambda each=each: each.leads() and each.ready(), 120)  # type: ignore[misc]
    try:
        apply(operators, ONE, "WorkerPool", "main", queues=["default"], replicas=0, template=TEMPLATE)
        for each, other in ((everywhere, ONE), (beside, "taskflow-system")):
            # They look each minute.
            (said, *_) = wait_for(lambda each=each: each.lines("pool_served_twice"), 200)  # type: ignore[misc]
            assert said["other"] == f"{other}/taskflow-operator"
        path = '{.status.conditions[?(@.type=="SoleOperator")].reason}'
        # Whoever looked last writes it; until then the other one may have written without.
        wait_for(lambda: read(operators, ONE, "tfp/main", path) == "ServedTwice", 90)
        wait_for(lambda: "ServedTwice" in operators.kubectl("get", "events.events.k8s.io", "-n", ONE))
    finally:
        operators.kubectl("delete", "-n", ONE, "tfp,deploy,lease", "--all")


def chart_rights(operators: Operators, release: str) -> str:
    """Give a ServiceAccount what the chart gives an operator of two namespaces; returns its token."""
    watched = f"watchNamespaces={{{ONE},{REST}}},workerNamespaces={{{ONE}}},workerPool.namespace={ONE}"
    objects = [
        each
        for each in render(*DEV, "--set", watched, release=release)
        if each["kind"] in RIGHTS and each["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
    ]
    assert not [each for each in objects if each["kind"].startswith("Cluster")]
    operators.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    (account,) = [each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"]
    return operators.kubectl("create", "token", account, "-n", "taskflow-system").strip()


def test_an_operator_of_some_namespaces_needs_rights_in_no_other(operators: Operators, servers: Stack) -> None:
    for namespace in (ONE, REST):
        servers.add_namespace(namespace)
    both, token = json.dumps([ONE, REST]), chart_rights(operators, SCOPED)
    operator = operators.start("scoped", token=token, TASKFLOW_NAMESPACES=both)
    wait_for(lambda: operator.leads() and operator.ready())
    try:
        for namespace in (ONE, REST):
            fill(operators, namespace)
        apply(operators, "default", "Task", "elsewhere", handler="taskflow.echo", queue="unserved")
        for namespace in (ONE, REST):
            wait_for(lambda ns=namespace: read(operators, ns, "tft/waits", "{.status.phase}") == "Queued")  # type: ignore[misc]
            wait_for(lambda ns=namespace: not read(operators, ns, "tft/ended", "{.metadata.name}"))  # type: ignore[misc]
            deployment = f"deploy/{read(operators, namespace, 'deploy', '{.items[0].metadata.name}')}"
            wait_for(lambda ns=namespace, d=deployment: read(operators, ns, d, "{.spec.replicas}") == "1")  # type: ignore[misc]
        refused = [(asked.method, asked.path) for asked in operator.proxy.asked if asked.code == 403]
        assert refused == []
        assert read(operators, "default", "tft/elsewhere", "{.status.phase}") == ""
        assert touched(operator) == {ONE, REST}
        # A namespace that goes takes its Roles with it; what happens in the other is not held up by that.
        operators.kubectl("delete", "rolebinding", "-n", REST, f"{SCOPED}-operator")
        operator.signal(signal.SIGTERM)
        assert operator.process.wait(30) == 0
        again = operators.start("scoped", token=token, TASKFLOW_NAMESPACES=both)
        wait_for(lambda: again.leads() and again.ready())
        apply(operators, ONE, "Task", "later", handler="taskflow.echo")
        wait_for(lambda: read(operators, ONE, "tft/later", "{.status.phase}") == "Queued")
        apply(operators, ONE, "WorkerPool", "second", queues=["second"], template=TEMPLATE)
        wait_for(lambda: "second" in read(operators, ONE, "deploy", "{.items[*].metadata.name}"))
        assert {line["namespace"] for line in again.lines("namespace_left_out")} == {REST}
    finally:
        for namespace in (ONE, REST):
            operators.kubectl("delete", "-n", namespace, "tft,tfp,deploy", "--all")
