"""Two operators on a real API server: one acts, the other stands by."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.taskflow_operator.process import OperatorProcess, Operators, wait_for

pytestmark = pytest.mark.integration


def pair(operators: Operators) -> tuple[OperatorProcess, OperatorProcess]:
    """A leader and its standby."""
    leader = operators.start("first")
    wait_for(lambda: leader.ready() and leader.leads())
    standby = operators.start("second")
    wait_for(standby.ready)
    return leader, standby


def test_one_leads_and_the_other_stands_by_and_says_so(operators: Operators) -> None:
    leader, standby = pair(operators)
    assert operators.holder() == "first"
    assert standby.get("/livez") == (200, "ok\n")
    assert "role: ok: standby: first leads" in standby.get("/readyz?verbose")[1]
    assert (leader.metric("taskflow_leader"), standby.metric("taskflow_leader")) == (1, 0)
    operators.apply_task("seen")
    wait_for(lambda: operators.phase("seen") == "Pending")
    # The proxy notes a request when it was answered, which the API server shows before.
    wait_for(leader.status_writes)
    # A standby looks at the Lease and at nothing else.
    assert {asked.path.rpartition("/")[0].rpartition("/")[2] for asked in standby.proxy.asked} <= {
        "leases",
        "taskflow-system",
    }
    assert all(asked.method == "GET" for asked in standby.proxy.asked)


def test_a_stopped_leader_hands_over_at_once(operators: Operators) -> None:
    leader, standby = pair(operators)
    operators.apply_task("before")
    wait_for(lambda: operators.phase("before") == "Pending")
    leader.signal(signal.SIGTERM)
    assert leader.process.wait(20) == 0
    # It gave the Lease back, so the standby need not wait until it runs out.
    assert operators.holder() in ("", "second")
    wait_for(lambda: standby.leads() and standby.ready())
    operators.apply_task("after")
    wait_for(lambda: operators.phase("after") == "Pending")
    assert max(leader.status_writes()) < min(standby.status_writes())


def test_a_killed_leader_is_replaced_when_its_lease_ran_out(operators: Operators) -> None:
    leader, standby = pair(operators)
    began = time.monotonic()
    leader.signal(signal.SIGKILL)
    leader.process.wait()
    wait_for(standby.leads, 20)
    assert 10 < time.monotonic() - began < 20
    wait_for(standby.ready)
    operators.apply_task("after")
    wait_for(lambda: operators.phase("after") == "Pending")


def test_a_leader_that_was_paused_writes_nothing_when_it_comes_back_and_ends(operators: Operators) -> None:
    leader, standby = pair(operators)
    operators.apply_task("before")
    wait_for(lambda: operators.phase("before") == "Pending")
    leader.signal(signal.SIGSTOP)
    for number in range(3):
        operators.apply_task(f"meanwhile-{number}")
    wait_for(standby.leads, 20)
    wait_for(lambda: operators.phase("meanwhile-2") == "Pending")
    resumed = time.monotonic()
    leader.signal(signal.SIGCONT)
    assert leader.process.wait(15) == 3
    assert leader.lines("lease_lost")
    assert [at for at in leader.status_writes() if at >= resumed] == []
    assert operators.holder() == "second"
    operators.apply_task("after")
    wait_for(lambda: operators.phase("after") == "Pending")


def test_a_leader_cut_off_from_the_api_server_ends_once_it_sees_its_successor(operators: Operators) -> None:
    leader, standby = pair(operators)
    cut = time.monotonic()
    leader.proxy.refuse = lambda _method, _path: 503
    operators.apply_task("meanwhile")
    wait_for(lambda: leader.metric("taskflow_leader") == 0, 15)
    assert "leader in doubt" in leader.get("/readyz")[1]
    assert operators.holder() == "first"
    wait_for(standby.leads, 20)
    wait_for(lambda: operators.phase("meanwhile") == "Pending")
    leader.proxy.refuse = lambda _method, _path: None
    assert leader.process.wait(15) == 3
    assert [at for at in leader.status_writes() if at >= cut] == []


def test_an_api_server_that_is_away_for_everybody_costs_a_pause_and_no_restart(operators: Operators) -> None:
    leader = operators.start("only")
    wait_for(lambda: leader.ready() and leader.leads())
    leader.proxy.refuse = lambda _method, _path: 503
    operators.apply_task("meanwhile")
    wait_for(lambda: not leader.ready(), 20)
    wait_for(lambda: "leader in doubt" in leader.get("/readyz")[1], 20)
    leader.proxy.refuse = lambda _method, _path: None
    wait_for(leader.ready, 40)
    wait_for(lambda: operators.phase("meanwhile") == "Pending")
    assert leader.process.poll() is None
    away = [line for line in leader.lines("dependency_unavailable") if line["dependency"] == "api-server"]
    back = wait_for(
        lambda: [line for line in leader.lines("dependency_recovered") if line["dependency"] == "api-server"]
    )
    assert (len(away), len(back)) == (1, 1)
    # Whatever else noticed it, Kopf included, kept to a few lines.
    assert len(leader.log.read_text().splitlines()) < 20


def test_a_restarted_operator_takes_its_own_lease_back_at_once(operators: Operators) -> None:
    first = operators.start("pod")
    wait_for(first.leads)
    first.signal(signal.SIGKILL)
    first.process.wait()
    again = operators.start("pod")
    wait_for(again.leads)
    # It does not look a second time, to see whether the Lease runs out.
    asked = [each.method for each in again.proxy.asked if "/leases" in each.path]
    assert asked[0] == "GET"
    assert asked[1] in ("PUT", "PATCH")


def test_without_election_there_is_no_lease(operators: Operators) -> None:
    alone = operators.start("alone", TASKFLOW_LEADER_ELECTION="false")
    wait_for(lambda: alone.ready() and alone.leads())
    assert not any("/leases" in asked.path for asked in alone.proxy.asked)
    operators.apply_task("seen")
    wait_for(lambda: operators.phase("seen") == "Pending")
