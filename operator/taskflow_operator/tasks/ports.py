"""What the tasks package needs from others, and what other controllers offer to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain.attempts import Attempt, AttemptKey, Entered, Held, State, Survey
from taskflow_core.domain.events import Event, EventKind, Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_operator.tasks.rules.decision import Decision, DependencyState


class Ledger(Protocol):
    """The work in flight. Methods raise `Unavailable` and may be repeated; see `OperatorLedger`."""

    async def enqueue(self, attempts: Sequence[Attempt], *, again: bool = False) -> list[Entered]:
        """Enter attempts; the answers are in the same order."""

    async def withdraw(self, attempt: AttemptKey) -> bool:
        """Take an attempt out; False if a worker claimed it."""

    async def request_stop(self, attempt: AttemptKey, reason: Reason) -> None:
        """Ask the worker of an attempt to stop."""

    async def note(self, item: Attempt) -> None:
        """Tell the history of a Task that is not queued."""

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        """What is known of each attempt."""

    async def settle_all(self, attempts: Sequence[tuple[Attempt, EventKind]]) -> None:
        """Close attempts whose outcome stands in the resource."""


class RecoveryLedger(Protocol):
    """What finds lost work. Methods raise `Unavailable` and may be repeated; see `OperatorLedger`."""

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        """What is known of each attempt."""

    async def give_up(self, attempts: Sequence[AttemptKey], failure: Failure) -> list[bool]:
        """Declare attempts lost that nobody holds."""

    async def serve(self, operator: str) -> str:
        """Register this operator; the name of the one that is registered."""

    async def begin_epoch(self, epoch: str) -> bool:
        """Name this life of the data; True if it had no name."""

    async def survey(self, namespaces: Mapping[str, int], *, grace_ms: int, limit: int) -> list[Survey]:
        """Leases that ran out, and attempts that wait, of each namespace."""

    async def expire(
        self,
        expired: Sequence[AttemptKey],
        nobodys: Sequence[tuple[str, str]] = (),
        *,
        failures: Mapping[AttemptKey, Failure] | None = None,
    ) -> list[AttemptKey]:
        """Declare attempts lost whose lease ran out."""

    async def oldest_messages(self, lists: Sequence[str]) -> list[str | None]:
        """The next message of each list."""


class HoldingsLedger(Protocol):
    """Who holds which attempts. Methods raise `Unavailable` and may be repeated; see `OperatorLedger`."""

    async def states(self, attempts: Sequence[AttemptKey]) -> list[State]:
        """What is known of each attempt."""

    async def held(self, namespace: str, pod: str, *, limit: int) -> list[Held]:
        """What the workers that ran in a pod hold."""

    async def expire(
        self,
        expired: Sequence[AttemptKey],
        nobodys: Sequence[tuple[str, str]] = (),
        *,
        failures: Mapping[AttemptKey, Failure] | None = None,
        holders: Mapping[AttemptKey, str] | None = None,
    ) -> list[AttemptKey]:
        """Declare attempts lost whose lease ran out, or whose holder is dead."""


@dataclass(frozen=True)
class Death:
    """Why a worker died, or what is known of it."""

    reason: Reason
    message: str


class WorkerDeaths(Protocol):
    """What is known of the pods of workers."""

    def death(self, namespace: str, pod: str) -> Death | None:
        """Why the worker of that pod died; None if nothing is known of the pod."""


class MessagePublisher(Protocol):
    """Where messages go. Raises `Unavailable`."""

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send a batch; harmless to repeat."""


@dataclass(frozen=True)
class EnteredAttempt:
    """A current attempt that is in the ledger and has to be started."""

    task: Task
    entered_ms: int
    """When it was entered, by Redis' clock."""


class AttemptStarter(Protocol):
    """One way to bring an attempt to a worker once it is in the ledger: a message for warm workers, or a pod of its
    own.
    """

    async def start(self, attempts: Sequence[EnteredAttempt]) -> None:
        """Start attempts; harmless to repeat. May raise `Unavailable`: the reconciler then finds those that were not
        started.
        """

    def waiting_message(self, task: Task) -> str:
        """What the status says while the attempt waits for a worker."""


class Execution(Protocol):
    """One way to run Tasks. The dispatcher decides, an execution acts."""

    async def apply(self, decisions: Sequence[tuple[Task, Decision]]) -> None:
        """Act on decisions about open Tasks. Raises our errors; then all of them are decided again."""

    async def republish(self, task: Task) -> None:
        """Send again what waits for a worker, because its queue or priority changed. Raises `Unavailable`."""


class ChunkController(Protocol):
    """The controller of arrays, as far as streams and reconciliation concern it."""

    def owns(self, event: Event) -> bool:
        """Whether an event is of an open array, and of a kind that its driver handles."""

    def take(self, event: Event) -> None:
        """Hand an event to the driver, which acknowledges it."""

    def in_hand(self, event: Event) -> bool:
        """Whether a driver is working on the event."""

    async def clean_up(self, namespace: str, uid: str) -> None:
        """Remove what an array that is not open left in Redis."""

    def data_lost(self, seconds: float, namespaces: Collection[str]) -> None:
        """Redis lost data of these namespaces: take stock after that time."""

    def waits(self, uid: str, attempt: int, chunk: int) -> bool:
        """Whether a chunk is in the ledger, as far as is known."""

    async def republish_chunks(self, uid: str, chunks: Sequence[tuple[int, int]]) -> None:
        """Send chunks again whose messages were lost. Raises `Unavailable`."""


class Dependencies(Protocol):
    """What a Task waits for."""

    async def states(self, task: Task) -> tuple[Sequence[DependencyState], Sequence[str]]:
        """States of `spec.dependsOn` in its order, and the cycle that the Task is part of, or nothing."""


class PastOutcomes(Protocol):
    """The history. Raises `Unavailable`."""

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        """Terminal phase of the latest Task of that name; None if there is none, or it never finished."""


class PastNames(Protocol):
    """The history. Raises `Unavailable`."""

    async def name_of(self, uid: str) -> tuple[str, str] | None:
        """Namespace and name of a Task; None if it is unknown."""


class StoredEnds(Protocol):
    """The history. Raises `Unavailable`."""

    async def stored(self, uids: Sequence[str]) -> set[str]:
        """Those of the uids whose end is stored."""
