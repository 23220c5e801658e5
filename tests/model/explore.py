"""Every state that can be reached, and whether all of them are as they should be."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.operating import landed, operator_steps
from tests.model.protocol import TERMINAL, Design, State, Step, accidents, beginning, canonical
from tests.model.working import worker_steps


def steps(state: State, design: Design) -> Iterator[tuple[str, State, bool]]:
    """What may happen next: its name, the state after it, and whether it happens for sure if it stays possible."""
    for name, after in accidents(state):
        yield name, after, False
    if state.late is not None:
        yield "the late write arrives", landed(state, state.late, design)._replace(late=None), True
    for number in (0, 1):
        for name, after in _both(state, number, design):
            yield name, after, not name.startswith("accident")


def _both(state: State, number: int, design: Design) -> Iterator[Step]:
    yield from worker_steps(state, number, design)
    yield from operator_steps(state, number, design)


@dataclass(frozen=True)
class Found:
    """What a search brought."""

    states: int
    wrong: str
    """Empty: nothing."""
    trace: tuple[str, ...]
    """The shortest way there."""


def explore(allowed: frozenset[str], design: Design, limit: int = 5_000_000) -> Found:
    """Look at all states, nearest first, until one is wrong; at the end look for those from which no end can be
    reached.
    """
    first = canonical(beginning(allowed))
    numbers: dict[State, int] = {first: 0}
    came: list[tuple[int, str]] = [(-1, "")]
    before: list[list[int]] = [[]]
    ends: list[int] = []
    queue: deque[State] = deque([first])
    while queue:
        state = queue.popleft()
        number = numbers[state]
        if state.status[1] in TERMINAL:
            ends.append(number)
        for name, plain, sure in steps(state, design):
            after = canonical(plain)
            if after == state:
                continue
            found = numbers.get(after)
            if found is None:
                found = numbers[after] = len(came)
                came.append((number, name))
                before.append([])
                if after.wrong:
                    return Found(len(came), after.wrong, _way(came, found))
                if len(came) > limit:
                    raise AssertionError(f"more than {limit} states")
                queue.append(after)
            if sure:
                before[found].append(number)
    stuck = _never(before, ends)
    if stuck is not None:
        return Found(len(came), "no end can be reached any more", _way(came, stuck))
    return Found(len(came), "", ())


def _never(before: list[list[int]], ends: list[int]) -> int | None:
    reaching = set(ends)
    todo = list(ends)
    while todo:
        for number in before[todo.pop()]:
            if number not in reaching:
                reaching.add(number)
                todo.append(number)
    return next((number for number in range(len(before)) if number not in reaching), None)


def _way(came: list[tuple[int, str]], number: int) -> tuple[str, ...]:
    names: list[str] = []
    while number > 0:
        number, name = came[number]
        names.append(name)
    return tuple(reversed(names))
