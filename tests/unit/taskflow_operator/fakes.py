"""The operator's ports in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain.attempts import Attempt, AttemptKey, Entered, Entry, Limited, State
from taskflow_core.domain.events import ENDS, EntryId, Event, EventKind
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.run_once import PastRun
from taskflow_core.domain.task import Task
from taskflow_core.errors import Dependency, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import Page
from taskflow_operator.isolated.launcher import WAITING_MESSAGE
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import EnteredAttempt
from taskflow_operator.tasks.rules.decision import Decision, DependencyState
from tests.builders import NOW, NOW_MS


async def eventually(what: Callable[[], object], seconds: float = 5) -> None:
    """Let the loop run until it is true-like."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.001)


class Journal(list[str]):
    """What happened, in order, over all fakes."""


@dataclass
class FakeLedger:
    """Entries and claims in memory. While `down` is true it answers nothing."""

    journal: Journal
    waiting: set[AttemptKey] = field(default_factory=set)
    claims: dict[AttemptKey, str] = field(default_factory=dict)
    notes: list[Attempt] = field(default_factory=list)
    settled: list[tuple[Attempt, EventKind]] = field(default_factory=list)
    stops: list[tuple[AttemptKey, Reason]] = field(default_factory=list)
    down: bool = False
    bug: list[Exception] = field(default_factory=list)
    """Raised by `settle_all`, one a call."""
    limits: dict[str, Limited] = field(default_factory=dict)
    """By uid, why an attempt may not be entered."""

    def _check(self) -> None:
        if self.down:
            raise Unavailable("Redis: down")

    async def enqueue(self, attempts: Sequence[Attempt], *, again: bool = False) -> list[Entered]:
        await asyncio.sleep(0)
        self._check()
        answers: list[Entered] = []
        for item in attempts:
            key = item.key
            if (limit := self.limits.get(item.uid)) is not None:
                answers.append(Entered(Entry.LIMITED, 0, limit))
                continue
            if key in self.claims:
                answers.append(Entered(Entry.TAKEN, 0))
                continue
            fresh = key not in self.waiting or again
            self.waiting.add(key)
            self.journal.append(f"entered {item.attempt}")
            answers.append(Entered(Entry.NEW if fresh else Entry.WAITING, NOW_MS))
        return answers

    async def settle_all(self, attempts: Sequence[tuple[Attempt, EventKind]]) -> None:
        self._check()
        if self.bug:
            raise self.bug.pop()
        for item, kind in attempts:
            self._settle(item, kind)

    def _settle(self, item: Attempt, kind: EventKind) -> None:
        self.journal.append(f"{kind} {item.attempt}")
        self.waiting.discard(item.key)
        self.claims[item.key] = kind.value
        self.settled.append((item, kind))

    async def withdraw(self, attempt: AttemptKey) -> bool:
        self._check()
        if attempt in self.claims:
            return False
        if attempt in self.waiting:
            self.waiting.discard(attempt)
            self.journal.append(f"withdrawn {attempt.attempt}")
        return True

    async def request_stop(self, attempt: AttemptKey, reason: Reason) -> None:
        self._check()
        self.stops.append((attempt, reason))

    async def note(self, item: Attempt, kind: EventKind = EventKind.PENDING) -> None:
        self._check()
        self.notes.append(item)

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        self._check()
        return [State(self.claims.get(key, ""), leased=False, waiting=key in self.waiting) for key in attempts]


@dataclass
class FakePublisher:
    journal: Journal
    sent: list[Outgoing] = field(default_factory=list)
    down: bool = False

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        if self.down:
            raise Unavailable("broker: down")
        for item in outgoing:
            # As the real one does, which sends it so.
            item.message.model_dump_json()
        self.journal.extend(f"published {item.message.attempt}" for item in outgoing)
        self.sent += outgoing


@dataclass
class FakeLauncher:
    journal: Journal
    launched: list[Task] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    async def start(self, attempts: Sequence[EnteredAttempt]) -> None:
        for each in attempts:
            self.journal.append(f"launched {each.task.status.attempt}")
            self.launched.append(each.task)

    def waiting_message(self, task: Task) -> str:
        return self.problems.get(task.uid, WAITING_MESSAGE)


@dataclass
class FakeArrays:
    """Takes decisions and events of arrays, and runs nothing."""

    tasks: OpenTasks
    decisions: list[Decision] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    republished: list[str] = field(default_factory=list)
    lost: list[tuple[float, set[str]]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)

    async def apply(self, decisions: Sequence[tuple[Task, Decision]]) -> None:
        self.decisions += [decision for _, decision in decisions]

    async def republish(self, task: Task) -> None:
        self.republished.append(task.uid)

    async def republish_chunks(self, uid: str, chunks: Sequence[tuple[int, int]]) -> None:
        self.republished.append(uid)

    def owns(self, event: Event) -> bool:
        known = self.tasks.get(event.uid)
        ours = event.kind in ENDS or event.kind in (EventKind.STARTED, EventKind.PROGRESS)
        return event.chunk is not None and ours and known is not None and known.task.spec.array is not None

    def take(self, event: Event) -> None:
        self.events.append(event)

    def in_hand(self, event: Event) -> bool:
        return event in self.events

    def data_lost(self, seconds: float, namespaces: Collection[str]) -> None:
        self.lost.append((seconds, set(namespaces)))

    def waits(self, uid: str, attempt: int, chunk: int) -> bool:
        return True

    async def clean_up(self, namespace: str, uid: str) -> None:
        self.gone.append((namespace, uid))


@dataclass
class FakeApi:
    """Keeps what was written; `failures` are raised first, one a request; while `open` is clear a request hangs."""

    journal: Journal
    written: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failures: list[TaskflowError] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    async def patch_status(self, plural: str, namespace: str, name: str, uid: str, status: dict[str, Any]) -> None:
        assert plural == "tasks"
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.running -= 1
        self.journal.append(f"written {status['phase']}")
        self.written.append((uid, status))

    @property
    def phases(self) -> list[str]:
        return [status["phase"] for _, status in self.written]


@dataclass
class FakeReader:
    acknowledged: list[EntryId] = field(default_factory=list)

    async def acknowledge(self, entries: Iterable[EntryId]) -> None:
        self.acknowledged += entries


@dataclass
class FakeKube:
    """Answers GET of one Task by name, and lists."""

    objects: dict[str, dict[str, Any] | TaskflowError] = field(default_factory=dict)
    pages: list[list[dict[str, Any]] | TaskflowError] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    async def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        self.asked.append(path)
        self.bodies.append(body)
        found = self.objects.get(path.rpartition("/")[2], NotFound("no such task"))
        if isinstance(found, TaskflowError):
            raise found
        return found

    async def list_pages(self, path: str, selector: str = "") -> Any:
        for page in self.pages:
            if isinstance(page, TaskflowError):
                raise page
            yield Page(page, "9")


@dataclass
class FakeDependencies:
    """Nobody waits for anybody; or, of those who do, nobody can tell."""

    away: bool = False

    async def states(self, task: Task) -> tuple[Sequence[DependencyState], Sequence[str]]:
        if self.away and task.spec.depends_on:
            raise Unavailable("PostgreSQL: down")
        return (), ()


@dataclass
class FakeOrphanedEnds:
    """Settles nothing, and says so once `settled` is set."""

    seen: list[str] = field(default_factory=list)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.settled.set()

    async def close(self, event: Event) -> None:
        self.seen.append(event.uid)
        await self.settled.wait()


async def at_once() -> None:
    """Leadership is beyond doubt."""


class FakeClock:
    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@dataclass
class FakeRuns:
    """What ran before, by namespace, name and digest, and the uids whose end is stored."""

    runs: dict[tuple[str, str, str], PastRun] = field(default_factory=dict)
    ends: set[str] = field(default_factory=set)
    away: bool = False
    asked: int = 0

    async def find_run(self, namespace: str, name: str, digest: str) -> PastRun | None:
        self.asked += 1
        if self.away:
            raise Unavailable("the database does not answer", Dependency.POSTGRES)
        return self.runs.get((namespace, name, digest))

    async def stored(self, uids: Sequence[str]) -> set[str]:
        return self.ends & set(uids)
