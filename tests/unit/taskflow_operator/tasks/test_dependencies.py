from __future__ import annotations

from typing import Any, cast

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_operator.tasks.dependencies import DependencyLookup, find_cycle
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules.decision import DependencyState
from tests.builders import make_object, make_task
from tests.unit.taskflow_operator.fakes import FakeKube


class Past:
    def __init__(self, **phases: Phase | None) -> None:
        self.phases = phases

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        return self.phases.get(name)


def named(name: str, *needs: str, phase: Phase | None = None) -> Task:
    return make_task(uid=name, name=name, phase=phase, depends_on=[{"name": need} for need in needs])


def known(*tasks: Task) -> OpenTasks:
    found = OpenTasks()
    for task in tasks:
        assert found.add(task)
    return found


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ({"a": ["b"], "b": ["c"]}, []),
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["a"]}, ["a", "b", "c", "a"]),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, []),
        ({"a": ["b", "c"], "b": [], "c": ["a"]}, ["a", "c", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, []),
    ],
)
def test_a_cycle_is_found_by_the_tasks_in_it(edges: dict[str, list[str]], cycle: list[str]) -> None:
    tasks = known(*(named(name, *needs) for name, needs in edges.items()))
    first = tasks.by_name("team-a", "a")
    assert first is not None
    assert list(find_cycle(first.task, tasks)) == cycle


def test_a_long_chain_is_followed_to_its_end() -> None:
    tasks = known(*(named(f"t{n}", f"t{n + 1}") for n in range(5000)), named("t5000", "t0"))
    first = tasks.by_name("team-a", "t0")
    assert first is not None
    assert len(find_cycle(first.task, tasks)) == 5002


async def test_states_come_from_memory_then_the_api_server_then_the_history() -> None:
    tasks = known(named("open"))
    closed = named("closed", phase=Phase.FAILED)
    tasks.add(closed.model_copy(update={"status": closed.status.model_copy(update={"phase": None})}))
    tasks.set_status("closed", closed.status)
    tasks.close("closed", 0.0)
    kube = FakeKube(
        {"finished": make_object(named("finished", phase=Phase.SUCCEEDED)), "fresh": make_object(named("fresh"))}
    )
    lookup = DependencyLookup(tasks, cast("Any", kube), Past(archived=Phase.SUCCEEDED))
    task = named("x", "open", "closed", "finished", "fresh", "archived", "nowhere")
    states, cycle = await lookup.states(task)
    assert list(states) == [
        DependencyState.OPEN,
        DependencyState.ENDED_BADLY,
        DependencyState.SUCCEEDED,
        DependencyState.OPEN,
        DependencyState.SUCCEEDED,
        DependencyState.MISSING,
    ]
    assert list(cycle) == []
    assert [path.rpartition("/")[2] for path in kube.asked] == ["finished", "fresh", "archived", "nowhere"]


async def test_without_an_answer_nothing_is_concluded() -> None:
    lookup = DependencyLookup(OpenTasks(), cast("Any", FakeKube({"first": Unavailable("down")})), Past())
    with pytest.raises(TaskflowError):
        await lookup.states(named("x", "first"))


async def test_while_the_history_is_away_only_what_it_alone_can_tell_is_unknown() -> None:
    class Away(Past):
        async def outcome(self, namespace: str, name: str) -> Phase | None:
            raise Unavailable("history database: down")

    kube = FakeKube({"finished": make_object(named("finished", phase=Phase.SUCCEEDED))})
    states, _ = await DependencyLookup(OpenTasks(), cast("Any", kube), Away()).states(named("x", "finished", "gone"))
    assert list(states) == [DependencyState.SUCCEEDED, DependencyState.UNKNOWN]


async def test_a_task_without_dependencies_asks_nobody() -> None:
    kube = FakeKube()
    assert await DependencyLookup(OpenTasks(), cast("Any", kube), Past()).states(named("x")) == ((), ())
    assert kube.asked == []
