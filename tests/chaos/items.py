"""What has to hold of the items of an array, whatever died. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ItemRun:
    """That an item was run, as its handler recorded it."""

    uid: str
    index: int
    attempt: int


@dataclass(frozen=True)
class Stretch:
    """A row of PostgreSQL: items that ended alike."""

    first: int
    last: int
    state: str


def repeated(runs: Iterable[ItemRun]) -> int:
    """Runs of an item at an attempt at which it had been run before."""
    return sum(count - 1 for count in Counter(runs).values())


def lost_items(total: int, status: Mapping[str, Any], rows: Sequence[Stretch], ran: set[int]) -> Iterator[str]:
    """What is not accounted for, of an array that ended well."""
    ended = Counter(index for row in rows for index in range(row.first, row.last + 1))
    missing = [index for index in range(total) if index not in ended]
    if missing:
        yield f"{len(missing)} items have no end in PostgreSQL, the first is {missing[0]}"
    if more := [index for index, count in ended.items() if count > 1 or not 0 <= index < total]:
        yield f"{len(more)} items ended more than once, the first is {min(more)}"
    if unproven := [index for index in ended if index not in ran]:
        yield f"{len(unproven)} items ended and were never run, the first is {min(unproven)}"
    for state in ("succeeded", "failed"):
        counted = sum(row.last - row.first + 1 for row in rows if row.state == state)
        if status.get(state) != counted:
            yield f"the status counts {status.get(state)} {state}, PostgreSQL has {counted}"
    if status.get("total") != total:
        yield f"the status counts {status.get('total')} in all, there are {total}"


def run_too_often(runs: Iterable[ItemRun], allowed: int) -> Iterator[str]:
    """Items that were run more often at one attempt than they may be."""
    often = {run: count for run, count in Counter(runs).items() if count > allowed}
    if often:
        run, count = max(often.items(), key=lambda pair: pair[1])
        item = f"item {run.index} {count} times at attempt {run.attempt}, at most {allowed}"
        yield f"{len(often)} items ran too often, {item}"
