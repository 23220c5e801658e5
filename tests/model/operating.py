"""What an operator does, step by step: dispatcher.py, delivery.py, event_consumer.py, closer.py, reconciler.py and
recovery.py in operator/taskflow_operator/tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import scripts
from tests.model.protocol import (
    ENDS,
    MAX_ATTEMPTS,
    TERMINAL,
    Closing,
    Design,
    Operator,
    State,
    Step,
    started,
    with_messages,
    with_operator,
    with_redis,
)


def operator_steps(state: State, number: int, design: Design) -> Iterator[Step]:
    operator = state.operators[number]
    if number == 0 and operator.role == "down":
        yield f"operator {number} starts", started(state, number)
        return
    if not operator.acts:
        return
    if operator.role == "doubts":
        yield (
            f"operator {number} sees its successor and ends",
            with_operator(state, number, **Operator(role="gone")._asdict()),
        )
    yield from _notice(state, number)
    yield from _dispatch(state, number, design)
    yield from _reconcile(state, number, design)
    yield from _close(state, number, design)
    if operator.role == "leads":
        yield from _write(state, number, design)
        yield from _take(state, number, design)


def landed(state: State, status: tuple[int, str], design: Design) -> State:
    """KubeClient.patch_status: tests the uid; the schema tests that an end stays one."""
    if state.status[1] in TERMINAL and status[1] != state.status[1]:
        if design.end_is_guarded:
            return state
        return state._replace(status=status, wrong="a terminal phase changed")
    if status[1] in TERMINAL and not _may_end(state, status):
        return state._replace(status=status, wrong="the resource shows an end that no execution had")
    # A worker that dies with what it was given costs an attempt, whether or not it had begun.
    executed = "worker!" in state.accidents or any(member == str(status[0] - 1) for member, _ in state.ran)
    if status[0] > state.status[0] and not executed:
        return state._replace(status=status, wrong="an attempt was used up that was never executed")
    return state._replace(status=status)


def _may_end(state: State, status: tuple[int, str]) -> bool:
    if status[1] == "Succeeded":
        return any(member == str(status[0]) for member, _ in state.won)
    return (
        status[1] == "Cancelled"
        or "worker!" in state.accidents
        or any(member == str(status[0]) for member, _ in state.ran)
    )


def _notice(state: State, number: int) -> Iterator[Step]:
    """Reconciler._check_epoch and Namespaces: the data is new or lost. What was in flight is held once the namespace is
    open again.
    """
    operator, redis = state.operators[number], state.redis
    if not redis.begun:
        after, _ = scripts.begin_epoch(redis)
        yield f"operator {number} begins an epoch", with_operator(with_redis(state, after), number, opens=True)
        return
    if not operator.opens and redis.epoch:
        return
    after, _ = scripts.open_namespace(redis, str(state.life))
    opened = with_operator(with_redis(state, after), number, opens=False)
    held = operator.known and operator.closing is None and operator.phase in ("Queued", "Running")
    holds = with_operator(opened, number, held=operator.attempt if held else operator.held)
    yield f"operator {number} opens the namespace and holds (open.lua)", holds
    if not operator.opens:
        # Whoever began the epoch died before this, and its successor takes the namespace for a new one.
        yield f"operator {number} opens the namespace (open.lua)", opened


def _dispatch(state: State, number: int, design: Design) -> Iterator[Step]:
    """Dispatcher._look: enqueue, or withdraw and request_stop when the user cancelled."""
    operator = state.operators[number]
    if not operator.known or operator.closing or operator.held:
        return
    member, redis = operator.member, state.redis
    if operator.publishes:
        sent = with_messages(state, operator.publishes, 1)
        yield f"operator {number} publishes {operator.publishes}", with_operator(sent, number, publishes="")
    elif state.cancel:
        entered = member in redis.ledger
        redis, withdrawn = scripts.withdraw(redis, member)
        withdrawn = withdrawn or (entered and not design.withdraw_minds_claims)
        if not withdrawn:
            after = with_redis(state, scripts.stop(redis, member))
            yield f"operator {number} asks {member} to stop (stop.lua)", after
            return
        after = _closes(with_redis(state, redis), number, (operator.attempt, "Cancelled"), None, design)
        if redis.owner(member) and redis.owner(member)[0].isdigit():
            after = after._replace(wrong="an attempt was withdrawn that somebody holds")
        yield f"operator {number} withdraws {member} (withdraw.lua)", after
    elif operator.phase != "Running":
        lent = redis if design.enqueue_minds_claims else scripts.own(redis, member, "")
        redis, answer = scripts.enqueue(lent, member)
        phase = "Running" if answer == "taken" and operator.phase != "Queued" else "Queued"
        after = with_operator(with_redis(state, redis), number, phase=phase)
        after = with_operator(after, number, publishes=member if answer == "new" else "")
        yield f"operator {number} enters {member}: {answer} (enqueue.lua)", after


def _reconcile(state: State, number: int, design: Design) -> Iterator[Step]:
    """Reconciler: expired leases, lost messages, recovery, attempts adrift."""
    operator = state.operators[number]
    ran_out = {member for member in state.redis.leases if _unrenewed(state, member)}
    if ran_out and not operator.held:
        redis = scripts.expire(state.redis, ran_out)
        if not design.expire_leaves_tombstone:
            for each in ran_out:
                redis = scripts.own(redis, each, "")
        yield f"operator {number} expires {sorted(ran_out)} (expire.lua)", with_redis(state, redis)
    if not operator.known or operator.closing:
        return
    member = operator.member
    if design.message_is_missed and not operator.held and not operator.publishes and _missed(state, member):
        redis, _ = scripts.enqueue(state.redis, member, again=True)
        after = with_operator(with_redis(state, redis), number, publishes=member)
        yield f"operator {number} misses message {member} (enqueue.lua)", after
    yield from _take_stock(state, number, design)


def _take_stock(state: State, number: int, design: Design) -> Iterator[Step]:
    """Reconciler._take_stock and _look_after_running: give_up.lua for what is nowhere."""
    operator, redis = state.operators[number], state.redis
    heard = all(each.paused or each.does != "runs" or each.renewed == redis.epoch for each in state.workers)
    if not heard and (design.recovery_waits or not operator.held):
        return
    member = operator.member
    nowhere = member not in redis.leases and member not in redis.ledger
    if operator.held:
        again = operator.phase == "Queued" and not redis.owner(member)
        after = with_operator(state, number, held=0)
        if operator.held == operator.attempt and nowhere and not again:
            after = _give_up(after, number, design)
        yield f"operator {number} recovers {member} (give_up.lua)", after
    elif nowhere and operator.phase == "Running":
        yield f"operator {number} finds {member} adrift (give_up.lua)", _give_up(state, number, design)


def _give_up(state: State, number: int, design: Design) -> State:
    operator = state.operators[number]
    runs = any(not w.paused and w.does == "runs" and w.attempt == operator.member for w in state.workers)
    if runs and not state.redis.owner(operator.member):
        state = state._replace(wrong="recovery took away what a healthy worker runs")
    if design.gives_up_by_event:
        if ("lost", operator.member) in state.redis.events:
            # Once is enough: the second such event is not believed.
            return state
        redis, _ = scripts.give_up(state.redis, operator.member)
        return with_redis(state, redis)
    if (operator.member, state.life) in state.asked:
        state = state._replace(wrong="an attempt that asked to be run again was taken for a lost one")
    return _closes(state, number, _next(operator, "lost", cancel=state.cancel), None, design)


def _unrenewed(state: State, member: str) -> bool:
    owner = state.redis.owner(member)
    holder = int(owner[0]) if owner[:1].isdigit() else -1
    worker = state.workers[holder] if holder >= 0 else None
    return worker is None or worker.paused or worker.does == "idle" or worker.attempt != member


def _missed(state: State, member: str) -> bool:
    fetched = any(not w.paused and w.does == "got" and w.attempt == member for w in state.workers)
    return member in state.redis.ledger and not state.queue[int(member) - 1] and not fetched


def _take(state: State, number: int, design: Design) -> Iterator[Step]:
    """EventConsumer._apply: the next event that is not in hand."""
    operator, redis = state.operators[number], state.redis
    if not redis.group:
        return
    in_hand = operator.closing.event if operator.closing else None
    event = next((each for each in redis.events if each != in_hand), None)
    if event is None:
        return
    kind, member = event
    counts = operator.known and member == operator.member and not operator.closing
    if counts and kind in ENDS:
        status = _next(operator, kind, cancel=state.cancel)
        after = _closes(state, number, status, event, design)
        if kind == "lost" and (member, state.life) in state.asked:
            after = after._replace(wrong="an attempt that asked to be run again was taken for a lost one")
        if not design.status_before_acknowledge:
            after = _acknowledged(after, event)
        yield f"operator {number} takes {kind} {member}", after
        return
    after = _acknowledged(state, event)
    if counts and kind == "started":
        after = with_operator(after, number, phase="Running")
    yield f"operator {number} takes {kind} {member}", after


def _acknowledged(state: State, event: tuple[str, str]) -> State:
    events = list(state.redis.events)
    if event in events:
        events.remove(event)
    return state._replace(redis=state.redis._replace(events=tuple(events)))


def _next(operator: Operator, kind: str, *, cancel: bool) -> tuple[int, str]:
    """transitions.ended"""
    if kind == "succeeded":
        return operator.attempt, "Succeeded"
    if cancel or kind == "cancelled":
        return operator.attempt, "Cancelled"
    if operator.attempt >= MAX_ATTEMPTS:
        return operator.attempt, "Failed"
    return operator.attempt + 1, "Pending"


def _closes(state: State, number: int, status: tuple[int, str], event: tuple[str, str] | None, design: Design) -> State:
    point = "write" if design.status_before_settle else "settle"
    closing = Closing(point, state.operators[number].member, event)
    if not design.status_before_next and status[1] == "Pending":
        # The next attempt may be entered at once; the status is written when somebody gets round to it.
        return with_operator(
            with_redis(state, scripts.settle(state.redis, closing.attempt)), number, attempt=status[0], phase=status[1]
        )
    return with_operator(state, number, attempt=status[0], phase=status[1], closing=closing, publishes="")


def _write(state: State, number: int, design: Design) -> Iterator[Step]:
    """StatusWriter: what the memory shows, now or after the quiet second."""
    operator = state.operators[number]
    if not operator.known:
        return
    waited_for = operator.closing is not None and operator.closing.point == "write"
    if operator.status == state.status and not waited_for:
        return
    if operator.closing is not None and operator.closing.point == "settle":
        return
    if not waited_for and "operator" not in state.accidents:
        # Only an operator that starts reads the resource, and none will.
        return
    after = landed(state, operator.status, design)
    if waited_for and operator.closing is not None:
        point = "settle" if design.status_before_settle else "acknowledge"
        after = with_operator(after, number, closing=operator.closing._replace(point=point))
    yield f"operator {number} writes {operator.status}", after


def _close(state: State, number: int, design: Design) -> Iterator[Step]:
    """Closer.close after the status stands: settle.lua, then forget or go on; the event is acknowledged last."""
    operator, closing = state.operators[number], state.operators[number].closing
    if closing is None or closing.point == "write":
        return
    if closing.point == "settle":
        after = with_redis(state, scripts.settle(state.redis, closing.attempt))
        point = "acknowledge" if design.status_before_settle else "write"
        after = with_operator(after, number, closing=closing._replace(point=point))
        yield f"operator {number} settles {closing.attempt} (settle.lua)", after
        return
    after = with_operator(state, number, closing=None, known=operator.phase not in TERMINAL)
    if closing.event is not None:
        after = _acknowledged(after, closing.event)
    yield f"operator {number} is done with {closing.attempt}", after
