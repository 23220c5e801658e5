"""DELETE .../run-once/{name}: what lets a Task with `spec.rerun` run again."""

from __future__ import annotations

from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.fakes import Api

PATH = "/v1/namespaces/team-a/run-once/report"


async def test_the_runs_of_a_name_are_forgotten_once() -> None:
    api = Api()
    api.history.kept_runs["team-a", "report"] = 2
    api.history.kept_runs["team-b", "report"] = 1
    assert (await api.call("DELETE", PATH)).status == 204
    answer = await api.call("DELETE", PATH)
    assert (answer.status, answer.json["code"]) == (404, "not-found")
    assert answer.json["detail"] == "no Task report of namespace team-a is known to have run with rerun set"
    assert api.history.kept_runs == {("team-b", "report"): 1}


async def test_it_takes_the_right_to_delete_the_task() -> None:
    api = Api()
    api.history.kept_runs["team-a", "report"] = 1
    answer = await api.call("DELETE", PATH, token="bob-token")
    assert answer.status == 403
    assert answer.json["detail"] == "bob may not delete tasks.taskflow.dev in namespace team-a"
    assert api.history.kept_runs == {("team-a", "report"): 1}


async def test_without_the_history_it_says_so() -> None:
    api = Api()
    api.history.failure = Unavailable("PostgreSQL: refused")
    assert (await api.call("DELETE", PATH)).status == 503
