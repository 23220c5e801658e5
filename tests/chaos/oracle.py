"""Judges a run from what was read of it. Pure: nothing here asks anybody anything."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.chaos.items import ItemRun, Stretch, lost_items, run_too_often

RUN_CHARS = 16
"""Length of an execution's name, which every result begins with."""
DUPLICATE, STALE = "duplicate", "stale"


class Wrong(StrEnum):
    """Kinds of violation."""

    LOST = "lost"
    """A Task that was created is gone, or never ended."""
    OUTCOME = "outcome"
    """It ended otherwise than its handler makes it end."""
    UNPROVEN = "unproven"
    """Its outcome is not that of an execution which the handler recorded."""
    HISTORY = "history"
    """PostgreSQL says something else than the resource."""
    TWICE = "twice"
    """An attempt was executed more often than it may be."""
    BEYOND = "beyond"
    """An attempt was executed that the resource does not know."""
    UNCOUNTED = "uncounted"
    """Duplicates or late ends are not counted as they happened."""
    OBJECT = "object"
    """The object store lacks an output, or holds what nobody wrote."""
    ITEMS = "items"
    """Items of an array are not accounted for."""
    TICK_TWICE = "tick twice"
    """A tick of a schedule became two Tasks."""
    TICK_LOST = "tick lost"
    """A tick became no Task, and was not counted as missed."""
    LEFT = "left"
    """Something was left behind."""
    ENDED = "ended"
    """A process ended that nobody killed."""


@dataclass(frozen=True)
class Violation:
    """One of them."""

    kind: Wrong
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Wanted:
    """A Task that the driver created, and was told so."""

    name: str
    uid: str
    handler: str
    phase: str = "Succeeded"
    """How it must end."""
    items: int = 0
    """Of an array, how many it has."""


@dataclass(frozen=True)
class Resource:
    """The end of a Task as the API server has it."""

    uid: str
    phase: str
    attempt: int
    result: Any = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Key in the bucket by name of the output."""
    duplicates: int = 0
    stale: int = 0
    array: Mapping[str, Any] = field(default_factory=dict)
    """Counters of an array."""


@dataclass(frozen=True)
class Row:
    """The same as PostgreSQL has it."""

    uid: str
    phase: str
    attempt: int
    result: Any = None
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """What a handler recorded of itself."""

    run: str
    uid: str
    attempt: int
    pid: int
    started: float
    ended: float | None = None
    raised: bool = False


@dataclass(frozen=True)
class Told:
    """An entry of an event stream, read as it was added."""

    id: str
    """Its name among those of all streams: `EntryId`."""
    kind: str
    uid: str
    attempt: int


@dataclass(frozen=True)
class Evidence:
    """Everything that was read after the run."""

    wanted: Sequence[Wanted]
    resources: Mapping[str, Resource]
    rows: Mapping[str, Row]
    executions: Sequence[Execution]
    told: Sequence[Told]
    timeline: frozenset[str]
    """Names of the refusals that the history knows."""
    objects: Mapping[str, bytes]
    """Content of each object by its key; logs without content."""
    refusals_by_metric: Mapping[str, int] | None = None
    """What the operator's counters gained, by kind; None when its process changed and took its counters along."""
    item_runs: Sequence[ItemRun] = ()
    item_rows: Mapping[str, Sequence[Stretch]] = field(default_factory=dict)
    """By the uids of their arrays."""
    data_losses: int = 0
    """How often Redis lost its data."""
    left: Sequence[str] = ()
    ended: Sequence[str] = ()


def judge(evidence: Evidence) -> list[Violation]:
    """All violations."""
    found = [*_ends(evidence), *_executions(evidence), *_history(evidence)]
    found += [*_objects(evidence), *_refusals(evidence), *_items(evidence)]
    found += [Violation(Wrong.LEFT, "after the run", each) for each in evidence.left]
    found += [Violation(Wrong.ENDED, "a process", each) for each in evidence.ended]
    return found


def beyond_one(executions: Iterable[Execution]) -> int:
    """Executions of attempts that had been executed before."""
    counts = Counter((each.uid, each.attempt) for each in executions)
    return sum(count - 1 for count in counts.values())


def _finished(evidence: Evidence) -> Iterator[tuple[Wanted, Resource]]:
    for wanted in evidence.wanted:
        resource = evidence.resources.get(wanted.uid)
        if resource is not None and resource.phase in ("Succeeded", "Failed", "Cancelled"):
            yield wanted, resource


def _ends(evidence: Evidence) -> Iterator[Violation]:
    runs = {each.run: each for each in evidence.executions}
    last: dict[tuple[str, int], list[Execution]] = defaultdict(list)
    for each in evidence.executions:
        last[each.uid, each.attempt].append(each)
    finished = {wanted.uid for wanted, _ in _finished(evidence)}
    for wanted in evidence.wanted:
        if wanted.uid not in finished:
            seen = evidence.resources.get(wanted.uid)
            yield Violation(Wrong.LOST, wanted.name, f"is {seen.phase or 'without phase' if seen else 'gone'}")
    for wanted, resource in _finished(evidence):
        if resource.phase != wanted.phase:
            yield Violation(Wrong.OUTCOME, wanted.name, f"{resource.phase}, its handler makes it {wanted.phase}")
        elif not wanted.items and (problem := _unproven(resource, evidence, runs, last)):
            yield Violation(Wrong.UNPROVEN, wanted.name, problem)


def _unproven(
    resource: Resource,
    evidence: Evidence,
    runs: Mapping[str, Execution],
    last: Mapping[tuple[str, int], Sequence[Execution]],
) -> str:
    """Why an outcome is not that of an execution; empty if it is. Items of an array have ends of their own."""
    if resource.phase == "Succeeded":
        name = _run_of(resource, evidence)
        run = runs.get(name)
        if run is None or (run.uid, run.attempt) != (resource.uid, resource.attempt):
            return f"its result {name!r} is of no execution of its attempt"
        return f"execution {name} never returned" if run.ended is None or run.raised else ""
    failed = any(each.raised for each in last.get((resource.uid, resource.attempt), ()))
    return "" if failed else f"no execution of attempt {resource.attempt} failed"


def _run_of(resource: Resource, evidence: Evidence) -> str:
    """The execution that the outcome names: inline, or in the object that a large result became."""
    value = resource.result
    if isinstance(value, dict) and "artifact" in value:
        content = evidence.objects.get(resource.outputs.get(value["artifact"], ""), b"")
        value = content.decode(errors="replace").strip('"')
    return str(value)[:RUN_CHARS]


def _executions(evidence: Evidence) -> Iterator[Violation]:
    counts = Counter((each.uid, each.attempt) for each in evidence.executions)
    names = {wanted.uid: wanted.name for wanted in evidence.wanted}
    allowed = 1 + evidence.data_losses
    for (uid, attempt), count in sorted(counts.items()):
        name = names.get(uid, uid)
        if count > allowed:
            yield Violation(Wrong.TWICE, name, f"attempt {attempt} was executed {count} times, at most {allowed}")
        resource = evidence.resources.get(uid)
        if resource is not None and attempt > resource.attempt:
            yield Violation(
                Wrong.BEYOND, name, f"attempt {attempt} was executed, the resource ended at {resource.attempt}"
            )


def _history(evidence: Evidence) -> Iterator[Violation]:
    for wanted, resource in _finished(evidence):
        row = evidence.rows.get(wanted.uid)
        if row is None:
            yield Violation(Wrong.HISTORY, wanted.name, "PostgreSQL does not know it")
            continue
        for what in ("phase", "attempt", "result", "outputs"):
            here, there = getattr(resource, what), getattr(row, what)
            if here != there:
                yield Violation(Wrong.HISTORY, wanted.name, f"{what}: resource {here!r}, PostgreSQL {there!r}")


def _items(evidence: Evidence) -> Iterator[Violation]:
    runs: dict[str, list[ItemRun]] = defaultdict(list)
    for each in evidence.item_runs:
        runs[each.uid].append(each)
    for wanted, resource in _finished(evidence):
        if wanted.items:
            mine, rows = runs[wanted.uid], evidence.item_rows.get(wanted.uid, ())
            for problem in lost_items(wanted.items, resource.array, rows, {run.index for run in mine}):
                yield Violation(Wrong.ITEMS, wanted.name, problem)
            for problem in run_too_often(mine, 1 + evidence.data_losses):
                yield Violation(Wrong.TWICE, wanted.name, problem)


def _objects(evidence: Evidence) -> Iterator[Violation]:
    executed = {(each.uid, each.attempt) for each in evidence.executions}
    executed |= {(run.uid, run.attempt) for run in evidence.item_runs}
    for key in evidence.objects:
        _, uid, attempt, *_ = [*key.split("/"), "", ""]
        if (uid, int(attempt) if attempt.isdigit() else 0) not in executed:
            yield Violation(Wrong.OBJECT, key, "no attempt that was executed has this prefix")
    for wanted, resource in _finished(evidence):
        for name, key in resource.outputs.items():
            content = evidence.objects.get(key)
            if f"/{resource.uid}/{resource.attempt}/" not in f"/{key}":
                yield Violation(Wrong.OBJECT, wanted.name, f"output {name} is not below its attempt: {key}")
            if content is None:
                yield Violation(Wrong.OBJECT, wanted.name, f"output {name} is not stored: {key}")
            elif name == "run.txt" and content.decode(errors="replace") != resource.result:
                yield Violation(Wrong.OBJECT, wanted.name, f"output {name} is of execution {content!r}")


def _refusals(evidence: Evidence) -> Iterator[Violation]:
    told = [each for each in evidence.told if each.kind in (DUPLICATE, STALE)]
    if not evidence.data_losses:
        for each in told:
            if each.id not in evidence.timeline:
                yield Violation(Wrong.UNCOUNTED, each.uid, f"the history lacks {each.kind} {each.id}")
    # The operator's stream has numbers of its own: which of two entries of a millisecond was first, nobody knows.
    ends = {each.uid: (_position(each.id)[0] + 1, 0) for each in evidence.told if each.kind == "settled"}
    for wanted, resource in _finished(evidence):
        for kind, counted in ((DUPLICATE, resource.duplicates), (STALE, resource.stale)):
            mine = [_position(each.id) for each in told if each.uid == wanted.uid and each.kind == kind]
            # What is refused while the end is being written may or may not be in it.
            final = _final_end(evidence, resource)
            # An operator that died took along what it had counted and not written: docs/failure-modes.md, what is not
            # guaranteed.
            least = sum(1 for each in mine if each < final) if evidence.refusals_by_metric is not None else 0
            most = max(sum(1 for each in mine if each < ends.get(wanted.uid, final)), least)
            if not least <= counted <= most:
                told_of = f"{least} to {most}" if most > least else f"{least}"
                yield Violation(Wrong.UNCOUNTED, wanted.name, f"status counts {counted} {kind}, recorded {told_of}")
    if evidence.refusals_by_metric is not None:
        for kind in (DUPLICATE, STALE):
            recorded = sum(1 for each in told if each.kind == kind)
            gained = evidence.refusals_by_metric.get(kind, 0)
            if gained != recorded:
                yield Violation(Wrong.UNCOUNTED, "metric", f"gained {gained} {kind}, recorded {recorded}")


def _final_end(evidence: Evidence, resource: Resource) -> tuple[int, int]:
    kinds = ("succeeded", "failed", "lost", "released", "cancelled")
    found = [
        _position(each.id)
        for each in evidence.told
        if each.uid == resource.uid and each.attempt == resource.attempt and each.kind in kinds
    ]
    return min(found, default=(0, 0))


def _position(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("@")[0].partition("-")
    return int(milliseconds), int(number)
