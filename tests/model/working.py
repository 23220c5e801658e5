"""What a worker does, step by step: worker/taskflow_worker/process/runner.py and leases.py."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import scripts
from tests.model.protocol import (
    TERMINAL,
    Design,
    State,
    Step,
    Worker,
    over,
    with_messages,
    with_redis,
    with_worker,
)

IDLE = Worker()._asdict()


def worker_steps(state: State, number: int, design: Design) -> Iterator[Step]:
    worker = state.workers[number]
    if worker.paused:
        # It need not go on.
        yield f"accident: worker {number} goes on", with_worker(state, number, paused=False)
        return
    if worker.does == "idle":
        for member in ("1", "2"):
            if state.queue[int(member) - 1]:
                taken = with_messages(state, member, -1)
                yield f"worker {number} gets {member}", with_worker(taken, number, does="got", attempt=member)
    elif worker.does == "got":
        yield _claim(state, number, design)
    else:
        yield from _finish(state, number, design)
    if "worker" in state.accidents and worker.does != "idle":
        yield _dies(over(state, "worker"), number)
    # What an idle worker knows of the epoch is of no use to it: what it claims from now on has a claim.
    if (worker.does != "idle" and worker.renewed != state.redis.epoch) or (
        worker.does == "runs" and worker.attempt in state.redis.stops
    ):
        yield _heartbeat(state, number, design)


def _claim(state: State, number: int, design: Design) -> Step:
    """Runner.execute: claim.lua."""
    member = state.workers[number].attempt
    before = state.redis
    lent = before
    if not design.claim_needs_ledger:
        lent = before._replace(ledger=before.ledger | {member})
    redis, granted = scripts.claim(lent, member, f"{number}|n", f"{number}|")
    if not granted:
        redis = redis._replace(ledger=before.ledger)
        after = with_worker(with_redis(state, redis), number, **IDLE)
        return f"worker {number} is refused {member} (claim.lua)", after
    if not design.claim_leaves_ledger:
        redis = redis._replace(ledger=before.ledger)
    after = with_redis(state, redis)
    run = (member, state.life)
    if run in state.ran:
        after = after._replace(wrong="an attempt was executed twice although Redis kept its data")
    elif any(life == state.life for _, life in state.won):
        after = after._replace(wrong="two winners: a success was accepted, and another execution began")
    elif state.status[1] in TERMINAL and not any(each.role in ("doubts", "gone") for each in state.operators):
        after = after._replace(wrong="an execution began after the Task's end stood")
    after = after._replace(ran=state.ran | {run})
    return f"worker {number} claims {member} (claim.lua)", with_worker(after, number, does="runs", epoch=redis.epoch)


def _finish(state: State, number: int, design: Design) -> Iterator[Step]:
    """Runner._run: finish.lua."""
    worker = state.workers[number]
    member, holder, prefix = worker.attempt, f"{number}|n", f"{number}|"
    for kind in ("succeeded", "failed", *(("again",) if "again" in state.accidents else ())):
        before = state.redis
        if not design.finish_compares_holder and before.owner(member):
            before = scripts.own(before, member, holder)
        redis, counted = scripts.finish(before, member, holder, prefix, kind, worker.epoch)
        after = with_worker(with_redis(state, redis), number, **IDLE)
        if counted and kind == "succeeded":
            if not _taken_away(state, member) and any(life == state.life for _, life in state.won):
                after = after._replace(wrong="two winners: two successes were accepted")
            after = after._replace(won=after.won if _taken_away(state, member) else state.won | {(member, state.life)})
        if counted and kind == "again" and not _taken_away(state, member):
            after = after._replace(asked=state.asked | {(member, state.life)})
        told = kind if counted else "stale"
        yield f"worker {number} finishes {member}: {told} (finish.lua)", after
        if not counted:
            return


def _taken_away(state: State, member: str) -> bool:
    """The Task is past the attempt: what its end brings is not looked at. Only when Redis forgot that is it accepted at
    all.
    """
    if state.life == 1:
        return False
    attempt = int(member)
    return state.status[0] > attempt or any(
        each.known and (each.attempt > attempt or (each.closing is not None and each.closing.attempt == member))
        for each in state.operators
    )


def _dies(state: State, number: int) -> Step:
    """Leases.process_died: surrender.lua. What was only delivered is lost, and nobody says so."""
    member = state.workers[number].attempt
    redis, _ = scripts.surrender(state.redis, member, f"{number}|", "lost")
    after = with_worker(with_redis(state, redis), number, **IDLE)
    return f"accident: pool process {number} dies with {member} (surrender.lua)", after


def _heartbeat(state: State, number: int, design: Design) -> Step:
    """Leases._renew_loop: heartbeat.lua. What is to stop is killed and surrendered, unless it ended before."""
    worker = state.workers[number]
    renews = worker.does == "runs" or (worker.does == "got" and not design.renews_what_runs)
    holdings = [(worker.attempt, f"{number}|")] if renews else []
    redis, (epoch, _, stops) = scripts.heartbeat(state.redis, holdings, worker.renewed)
    # What is only delivered may be claimed by now: it has to be entered again with the next heartbeat.
    after = with_worker(state, number, renewed=epoch) if renews else state
    if worker.does == "runs" and stops:
        redis, _ = scripts.surrender(redis, worker.attempt, f"{number}|", "cancelled")
        after = with_worker(after, number, **IDLE)
    return f"worker {number} renews (heartbeat.lua)", with_redis(after, redis)
