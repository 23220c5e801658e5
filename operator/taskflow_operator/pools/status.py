"""Builds the status of a WorkerPool from its Deployment, its pods and its queues. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.conditions import set_condition
from taskflow_core.domain.resource import Condition
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_operator.pools.scaling import Demand

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
EVENTS_INTACT = "EventsIntact"
SOLE_OPERATOR = "SoleOperator"
SHOWN = timedelta(minutes=10)
"""How long a pool shows that the events of its namespace were not intact, or that another operator served it too."""


@dataclass(frozen=True)
class PoolFigures:
    """Workers and queues of a pool at the moment."""

    demand: Demand = field(default_factory=Demand)
    depths: Mapping[str, int] = field(default_factory=dict)
    """Messages in the broker, by queue."""
    slots: int = 0
    busy: int = 0


@dataclass(frozen=True)
class LastDecision:
    """The last change of the number of pods by the scaler."""

    time: datetime
    replicas: int
    reason: str
    message: str


@dataclass(frozen=True)
class PoolFacts:
    """What a pool's status is made of, besides its specification."""

    deployment: Mapping[str, Any] | None = None
    """Its Deployment, if there is one."""
    refusal: str | None = None
    """Why the API server refused the Deployment."""
    problem: str | None = None
    """Why its pods cannot start."""
    desired: int | None = None
    """Pods that the scaler wants."""
    figures: PoolFigures = field(default_factory=PoolFigures)
    decision: LastDecision | None = None
    set_aside: tuple[datetime, str] | None = None
    """When an event stream of the namespace was found broken, and why."""
    served_twice: tuple[datetime, str] | None = None
    """When another operator was found to serve the pool too, and which."""


def pool_status(pool: WorkerPool, found: PoolFacts, now: datetime) -> dict[str, Any]:
    """The pool's status by the rules of kstatus: Ready, Reconciling while it makes progress, Stalled when it cannot.

    Args:
        pool: the specification.
        found: what exists.
        now: the time of transitions.
    """
    state = (found.deployment or {}).get("status") or {}
    ready, replicas = state.get("readyReplicas", 0), state.get("replicas", 0)
    fixed = pool.fixed_replicas
    wanted = fixed if fixed is not None else found.desired if found.desired is not None else replicas
    seen = state.get("observedGeneration", 0) >= ((found.deployment or {}).get("metadata") or {}).get("generation", 1)
    settled = seen and replicas == wanted == ready and state.get("updatedReplicas", 0) == wanted
    stuck = found.refusal or _no_login(pool, found) or found.problem or _stuck(state.get("conditions") or ())
    reason, message = _reason(pool, found, stuck, f"{ready} of {wanted} workers are ready", settled=settled)
    conditions = pool.conditions
    for kind, holds in (
        (READY, settled and not stuck),
        (RECONCILING, not settled and not stuck),
        (STALLED, bool(stuck)),
    ):
        conditions = set_condition(
            conditions, kind, status=holds, reason=reason, message=message, generation=pool.generation, now=now
        )
    conditions = _events_intact(conditions, found.set_aside, pool.generation, now)
    conditions = _sole_operator(conditions, found.served_twice, pool.generation, now)
    figures, decision = found.figures, found.decision
    status: dict[str, Any] = {
        "observedGeneration": pool.generation,
        "replicas": replicas,
        "readyReplicas": ready,
        "desiredReplicas": wanted,
        "demand": figures.demand.slots,
        "queued": figures.demand.ready,
        "queueDepths": dict(figures.depths),
        "oldestWaitingSeconds": int(figures.demand.oldest_seconds),
        "slots": figures.slots,
        "busySlots": figures.busy,
        "selector": pool.label_selector,
        "conditions": [c.model_dump(mode="json", by_alias=True) for c in conditions],
    }
    if decision is not None:
        status["lastDecision"] = {
            "time": decision.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "replicas": decision.replicas,
            "reason": decision.reason,
            "message": decision.message,
        }
    return status


def _events_intact(
    conditions: tuple[Condition, ...], set_aside: tuple[datetime, str] | None, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Whether the workers' events could be read. A pool whose could always be read does not have this condition."""
    if set_aside is not None:
        message = (
            f"the event stream of the namespace was made anew from its Tasks: {set_aside[1]}; whoever has the login of "
            "its workers wrote what workers do not write"
        )
        set_aside = set_aside[0], message
    return _for_a_while(conditions, EVENTS_INTACT, ("StreamReset", "Intact"), set_aside, generation, now)


def _sole_operator(
    conditions: tuple[Condition, ...], served_twice: tuple[datetime, str] | None, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Whether no other operator serves the pool. A pool for which that was always so does not have this condition."""
    return _for_a_while(conditions, SOLE_OPERATOR, ("ServedTwice", "ServedOnce"), served_twice, generation, now)


def _for_a_while(
    conditions: tuple[Condition, ...],
    kind: str,
    reasons: tuple[str, str],
    problem: tuple[datetime, str] | None,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """A condition that is false for `SHOWN` after a problem, and true again later; `reasons` are for either."""
    holds = problem is None or now - problem[0] >= SHOWN
    if holds and not any(each.type == kind for each in conditions):
        return conditions
    return set_condition(
        conditions,
        kind,
        status=holds,
        reason=reasons[holds],
        message="" if holds or problem is None else problem[1],
        generation=generation,
        now=now,
    )


def _reason(pool: WorkerPool, found: PoolFacts, stuck: str | None, message: str, *, settled: bool) -> tuple[str, str]:
    if stuck:
        if found.refusal:
            return "DeploymentRefused", stuck
        if _no_login(pool, found):
            return "NoWorkerLogin", stuck
        return ("PodsFailing" if found.problem else "DeploymentStuck"), stuck
    if pool.spec.drain:
        return "Draining", f"{message}; the pool drains, so it takes nothing new"
    if pool.spec.paused:
        return "Paused", f"{message}; the pool is paused, so it takes nothing new"
    return ("WorkersReady" if settled else "WorkersStarting"), message


def _no_login(pool: WorkerPool, found: PoolFacts) -> str | None:
    """What to do where the pods wait for the Secret with the workers' logins, as the kubelet says; else None."""
    if found.problem is None or f'secret "{naming.WORKER_SECRET}" not found' not in found.problem:
        return None
    return (
        f"namespace {pool.namespace!r} has no Secret {naming.WORKER_SECRET!r} with the workers' logins: label the "
        f"namespace {naming.LABEL_WORKERS}={naming.WORKERS_ENABLED}, or create the Secret"
    )


def _stuck(conditions: Any) -> str | None:
    for condition in conditions:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message"))
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message"))
    return None
