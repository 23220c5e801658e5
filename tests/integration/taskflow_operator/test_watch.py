"""What ends a watch, of Tasks or Kopf's, does not end the operator."""

from __future__ import annotations

import pytest

from tests.integration.taskflow_operator.process import OperatorProcess, Operators, wait_for

pytestmark = pytest.mark.integration


def alone(operators: Operators) -> OperatorProcess:
    operator = operators.start("only")
    wait_for(lambda: operator.ready() and operator.leads())
    wait_for(lambda: watches(operator) == 1)
    return operator


def watches(operator: OperatorProcess) -> int:
    return sum(asked.watches_tasks for asked in operator.proxy.asked)


def sees_new_tasks(operators: Operators, name: str) -> None:
    operators.apply_task(name)
    wait_for(lambda: operators.phase(name) == "Pending")


def test_an_error_on_the_watch_costs_a_new_watch(operators: Operators) -> None:
    operator = alone(operators)
    # Its own, and Kopf's of pools and Deployments.
    wait_for(lambda: {"tasks", "taskschedules", "pods", "workerpools", "deployments"} <= operator.proxy.watched)
    wait_for(
        lambda: (
            sum("watch=true" in asked.query and asked.path.endswith("/tasks") for asked in operator.proxy.asked) == 2
        )
    )
    operator.proxy.say_on_watches(504)
    wait_for(lambda: operator.metric("taskflow_watch_ends_total") == 5)
    wait_for(lambda: watches(operator) == 2)
    sees_new_tasks(operators, "after")
    lines = operator.lines("watch_ended")
    assert sorted(line["watch"] for line in lines) == ["finished-tasks", "kopf", "pods", "tasks", "taskschedules"]
    assert all("504" in line["error"] for line in lines)
    assert operator.process.poll() is None


def test_http_410_for_lists_and_watches_is_outlived(operators: Operators) -> None:
    operator = alone(operators)
    operator.proxy.refuse = lambda _method, path: 410 if "/tasks?" in path else None
    operator.proxy.say_on_watches(410)
    wait_for(lambda: operator.metric("taskflow_watch_ends_total") >= 1)
    operators.apply_task("meanwhile")
    operator.proxy.refuse = lambda _method, _path: None
    wait_for(lambda: operators.phase("meanwhile") == "Pending")
    assert operator.process.poll() is None
    assert operator.ready()


def test_while_there_is_no_watch_new_tasks_come_in_by_the_list(operators: Operators) -> None:
    operator = alone(operators)
    operator.proxy.refuse = lambda _method, path: 503 if "watch=true" in path else None
    operator.proxy.say_on_watches(500)
    wait_for(lambda: operator.metric("taskflow_watch_ends_total") >= 1)
    sees_new_tasks(operators, "unwatched")
    assert watches(operator) == 1
    assert operator.ready()
