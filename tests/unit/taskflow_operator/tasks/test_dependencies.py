from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any, cast

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_operator.tasks.cycles import SLICE, find_cycle
from taskflow_operator.tasks.dependencies import DependencyLookup
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
async def test_a_cycle_is_found_by_the_tasks_in_it(edges: dict[str, list[str]], cycle: list[str]) -> None:
    tasks = known(*(named(name, *needs) for name, needs in edges.items()))
    first = tasks.by_name("team-a", "a")
    assert first is not None
    assert list(await find_cycle(first.task, tasks)) == cycle


async def test_a_long_chain_is_followed_to_its_end() -> None:
    tasks = known(*(named(f"t{n}", f"t{n + 1}") for n in range(5000)), named("t5000", "t0"))
    first = tasks.by_name("team-a", "t0")
    assert first is not None
    assert len(await find_cycle(first.task, tasks)) == 5002


async def test_of_random_tasks_those_in_a_cycle_are_found_whenever_they_are_looked_at() -> None:
    rng = random.Random(7)
    for _ in range(200):
        size = rng.randint(2, 12)
        edges = {f"t{n}": {f"t{rng.randrange(size)}" for _ in range(rng.choice([0, 1, 1, 2]))} for n in range(size)}
        tasks = OpenTasks()
        lookup = DependencyLookup(tasks, cast("Any", FakeKube({name: Unavailable("down") for name in edges})), Past())
        said = False
        for name in rng.sample(sorted(edges), size):
            tasks.add(named(name, *sorted(edges[name])))
            try:
                _, cycle = await lookup.states(named(name, *sorted(edges[name])))
            except Unavailable:
                cycle = ()
            if cycle:
                said = True
                assert cycle[0] == cycle[-1] == name
                assert all(after in edges[before] for before, after in pairwise(cycle))
        assert said is cyclic(edges)


def cyclic(edges: dict[str, set[str]]) -> bool:
    """Whether something is left when again and again what needs nothing is taken away."""
    left = {name: set(needs) for name, needs in edges.items()}
    while free := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in free}
    return bool(left)


class Counting(OpenTasks):
    """Counts the Tasks that are looked at."""

    looked = 0

    def by_name(self, namespace: str, name: str) -> Any:
        self.looked += 1
        return super().by_name(namespace, name)


def dense(tasks: OpenTasks, size: int) -> None:
    """Each depends on the 32 before it: as many dependencies as a Task may have."""
    for n in range(size):
        tasks.add(named(f"t{n}", *(f"t{before}" for before in range(max(0, n - 32), n))))


async def test_a_task_that_nothing_depends_on_is_in_no_cycle_without_a_search() -> None:
    tasks = Counting()
    dense(tasks, 500)
    last = tasks.by_name("team-a", "t499")
    tasks.looked = 0
    assert await find_cycle(last.task, tasks) == ()
    assert tasks.looked <= 1


async def test_a_search_lets_others_have_their_turn_and_is_not_repeated() -> None:
    tasks = Counting()
    dense(tasks, 500)
    middle = tasks.by_name("team-a", "t250")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    lookup = DependencyLookup(tasks, cast("Any", FakeKube()), Past())
    beside = asyncio.create_task(others())
    assert (await lookup.states(middle.task))[1] == ()
    # Each of the two directions has some 250 Tasks of 32 dependencies; both are followed until one has an end.
    assert turns >= 250 * 32 // SLICE
    beside.cancel()
    tasks.looked = 0
    assert (await lookup.states(middle.task))[1] == ()
    assert tasks.looked == 32  # one for each state


async def test_a_cycle_one_of_whose_tasks_ended_during_the_search_is_none() -> None:
    tasks = known(*(named(f"t{n}", f"t{n + 1}") for n in range(2 * SLICE)), named(f"t{2 * SLICE}", "t0"))
    first = tasks.by_name("team-a", "t0")
    assert first is not None
    searching = asyncio.create_task(find_cycle(first.task, tasks))
    await asyncio.sleep(0)
    tasks.close("t10", 0.0)
    assert await searching == ()


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
