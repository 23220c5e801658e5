"""One Task, its Redis, two workers and two operators as a graph of states: what may happen next, step by step.

A step is what happens at once in the product: a Lua script with what its caller makes of the answer, a write to the API
server, or an accident. Between two steps everything else may happen. Steps that only touch the memory of one process
are part of the step before them.

Time is left out. What a lease or a hold waits for is a condition instead: a lease runs out only while its worker is
paused or no longer runs the attempt, and whoever waits for the workers' heartbeats goes on when each worker that is not
paused has sent one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.model.scripts import Redis

ENDS = frozenset({"succeeded", "failed", "again", "cancelled", "lost"})
TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled"})
MAX_ATTEMPTS = 2
"""Both after a failure and after `Again`: the third one ends the Task."""
MAX_MESSAGES = 2
"""Messages of one attempt in the queue: one more is one more refusal. Without a second delivery one is enough."""


class Design(NamedTuple):
    """What the protocol depends on. Each set to False is a mistake that the checker has to find."""

    claim_needs_ledger: bool = True
    claim_leaves_ledger: bool = True
    enqueue_minds_claims: bool = True
    withdraw_minds_claims: bool = True
    finish_compares_holder: bool = True
    expire_leaves_tombstone: bool = True
    renews_what_runs: bool = True
    """A heartbeat enters nothing again that was only delivered."""
    status_before_settle: bool = True
    status_before_next: bool = True
    """The next attempt is entered after its number stands in the resource."""
    status_before_acknowledge: bool = True
    recovery_waits: bool = True
    gives_up_by_event: bool = True
    """An attempt that nobody holds is taken away by a script and an event behind all others, not by a decision of the
    operator."""
    end_is_guarded: bool = True
    """The API server refuses to change a terminal phase."""
    message_is_missed: bool = True
    """A ledger entry without a message is published again."""


class Worker(NamedTuple):
    """A worker with one pool process."""

    does: str = "idle"
    """idle, got (a delivery), runs."""
    attempt: str = ""
    epoch: str = ""
    """That the claim was made in."""
    renewed: str = "1"
    """That the last heartbeat answered with."""
    paused: bool = False


class Closing(NamedTuple):
    """Where `Closer.close` is."""

    point: str
    """write, settle, acknowledge."""
    attempt: str
    event: tuple[str, str] | None


class Operator(NamedTuple):
    """An operator's memory of the Task, and how far it is with what it does."""

    role: str = "down"
    """down, leads, doubts (a former leader that has not seen its successor), gone."""
    known: bool = False
    attempt: int = 1
    phase: str = ""
    held: int = 0
    """The attempt that was in flight when the data was lost; nothing is dispatched until stock was taken of it."""
    opens: bool = False
    """It found that the data is new or lost, and has not opened the namespace yet."""
    publishes: str = ""
    """Entered, and its message not sent yet."""
    closing: Closing | None = None

    @property
    def member(self) -> str:
        return str(self.attempt)

    @property
    def status(self) -> tuple[int, str]:
        return self.attempt, self.phase

    @property
    def acts(self) -> bool:
        return self.role in ("leads", "doubts")


class State(NamedTuple):
    """Everything."""

    redis: Redis
    queue: tuple[int, int]
    """Messages of attempts 1 and 2."""
    workers: tuple[Worker, Worker]
    operators: tuple[Operator, Operator]
    status: tuple[int, str] = (1, "")
    """Attempt and phase, as the API server has them."""
    cancel: bool = False
    """spec.cancel"""
    late: tuple[int, str] | None = None
    """A status write that a dead or former leader sent and that has not arrived."""
    accidents: frozenset[str] = frozenset()
    """That may still happen and, with a mark, that did."""
    life: int = 1
    ran: frozenset[tuple[str, int]] = frozenset()
    """Executions so far: attempt and life of Redis' data. Of these last four only the checker knows."""
    won: frozenset[tuple[str, int]] = frozenset()
    """Successes that `finish` accepted."""
    asked: frozenset[tuple[str, int]] = frozenset()
    """Likewise for `Again`, in the scope of that name."""
    wrong: str = ""
    """What must never happen and did, in the step that led here."""


Step = tuple[str, State]


def beginning(accidents: frozenset[str]) -> State:
    """A new Task, and a leader that has just seen it."""
    redis = Redis(begun=True, epoch="1", group=True)
    leader = Operator(role="leads", known=True)
    return State(redis, (0, 0), (Worker(), Worker()), (leader, Operator()), accidents=accidents)


def over(state: State, accident: str) -> State:
    """It happens no second time."""
    return state._replace(accidents=state.accidents - {accident} | {accident + "!"})


def with_redis(state: State, redis: Redis) -> State:
    """Redis after a script: without what nobody in the model reads, and without who held what was taken away."""
    if redis == state.redis:
        return state
    events = tuple(event for event in redis.events if event[0] in ENDS or event[0] == "started")
    claims = tuple((member, ended(value)) for member, value in redis.claims)
    return state._replace(redis=redis._replace(events=events, notes=(), claims=claims))


def ended(claim: str) -> str:
    """A claim that is over refuses everybody alike, but for the one that was done."""
    kind, bar, _ = claim.partition("|")
    return kind + bar if bar and kind in ENDS else claim


def with_messages(state: State, member: str, more: int) -> State:
    queue = list(state.queue)
    place = int(member) - 1
    doubled = "duplicate" in state.accidents or "duplicate!" in state.accidents
    queue[place] = min(queue[place] + more, MAX_MESSAGES if doubled else 1)
    return state._replace(queue=(queue[0], queue[1]))


def with_worker(state: State, number: int, **changes: Any) -> State:
    workers = list(state.workers)
    workers[number] = workers[number]._replace(**changes)
    return state._replace(workers=(workers[0], workers[1]))


def with_operator(state: State, number: int, **changes: Any) -> State:
    operators = list(state.operators)
    operators[number] = operators[number]._replace(**changes)
    return state._replace(operators=(operators[0], operators[1]))


def accidents(state: State) -> Iterator[Step]:
    """What the product cannot help, and what the user may do. None of these has to happen."""
    left = state.accidents
    if "flush" in left:
        after = over(state, "flush")._replace(redis=Redis(), queue=(0, 0), life=state.life + 1)
        yield "flush", after
    if "cancel" in left and state.status[1] not in TERMINAL:
        yield "user cancels", over(state, "cancel")._replace(cancel=True)
    if "duplicate" in left:
        for member in ("1", "2"):
            if state.queue[int(member) - 1] or any(w.does != "idle" and w.attempt == member for w in state.workers):
                yield f"message {member} is delivered twice", with_messages(over(state, "duplicate"), member, 1)
    for number, worker in enumerate(state.workers):
        if "worker" in left and worker.does != "idle" and not worker.paused:
            yield f"worker {number} is paused", with_worker(over(state, "worker"), number, paused=True)
    leader = state.operators[0]
    if "operator" in left and leader.role == "leads":
        sent = (None, leader.status) if leader.known and leader.status != state.status else (None,)
        for late in sent:
            words = "" if late is None else " with a write on its way"
            after = over(state, "operator")._replace(late=late)
            yield f"operator dies{words}", with_operator(after, 0, **Operator()._asdict())
            deposed = with_operator(after, 0, role="doubts")
            yield f"leader is paused, standby leads{words}", started(deposed, 1)


def started(state: State, number: int) -> State:
    """Operator.work: list the open Tasks."""
    attempt, phase = state.status
    fresh = Operator(role="leads", known=phase not in TERMINAL, attempt=attempt, phase=phase)
    return with_operator(state, number, **fresh._asdict())


def canonical(state: State) -> State:
    """One of all states that differ in nothing that can be seen.

    Two workers are alike but for their names. An event that no operator will ever look at is as good as acknowledged,
    which is one of an attempt that both the leader and the resource are past.
    """
    past = min(state.status[0], *(each.attempt for each in state.operators if each.role == "leads"), 9)
    events = tuple(event for event in state.redis.events if int(event[1]) >= past or _in_hand(state, event))
    if events != state.redis.events:
        state = state._replace(redis=state.redis._replace(events=events))
    first, second = state.workers
    if first <= second:
        return state
    names = {"0|": "1|", "1|": "0|"}
    claims = tuple(
        (member, next((value.replace(a, b) for a, b in names.items() if a in value), value))
        for member, value in state.redis.claims
    )
    return state._replace(workers=(second, first), redis=state.redis._replace(claims=claims))


def _in_hand(state: State, event: tuple[str, str]) -> bool:
    return any(each.closing is not None and each.closing.event == event for each in state.operators)
