"""How many workers a pool wants: pure, from a snapshot of its queues and the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from taskflow_core.domain.resource import Model


class Scaling(Model):
    """`spec.scaling` of a WorkerPool."""

    min_replicas: int = 0
    max_replicas: int
    tasks_per_replica: int | None = None
    """Slots of demand that one pod is for; its concurrency if not said."""
    scale_down_delay_seconds: int = 60
    idle_seconds_to_zero: int = 300
    scale_up_limit: int | None = None
    """Pods that one decision may add."""


class Why(StrEnum):
    """Reasons of a decision."""

    DEMAND = "Demand"
    """As many as the demand asks for."""
    SCALE_UP_LIMIT = "ScaleUpLimit"
    """More are wanted, but not in one step."""
    SCALE_DOWN_DELAY = "ScaleDownDelay"
    """Fewer are wanted, but not for long enough."""
    IDLE_DELAY = "IdleDelay"
    """None is wanted, but not for long enough."""
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"
    PAUSED = "Paused"
    DRAINING = "Draining"


@dataclass(frozen=True)
class Demand:
    """What waits for a pool and what it runs, in slots."""

    ready: int = 0
    """Queued attempts, in a list of the broker or on their way."""
    leased: int = 0
    due_soon: int = 0
    """Attempts that become due before a pod could start for them."""
    oldest_seconds: float = 0.0
    """For how long the oldest has been ready."""

    @property
    def slots(self) -> int:
        """All of it."""
        return self.ready + self.leased + self.due_soon


@dataclass(frozen=True)
class ScalingHistory:
    """What earlier decisions have to be remembered for; empty at the start, which only delays scaling down."""

    wanted: tuple[tuple[datetime, int], ...] = ()
    """When how many were wanted: falling numbers, of the last `scale_down_delay_seconds`."""
    idle_since: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """How many pods there should be, and why."""

    replicas: int
    reason: Why
    message: str
    history: ScalingHistory


def decide(
    scaling: Scaling, concurrency: int, current: int, demand: Demand, history: ScalingHistory, now: datetime
) -> Decision:
    """How many pods there should be.

    wanted = ceil(demand / tasksPerReplica), within minReplicas and maxReplicas. Up at once, by at most scaleUpLimit. Down to the
    most that was wanted in the last scaleDownDelaySeconds; to none after idleSecondsToZero without any demand.
    """
    per_pod = scaling.tasks_per_replica or concurrency
    asked = -(-demand.slots // per_pod)
    wanted = min(max(asked, scaling.min_replicas), scaling.max_replicas)
    idle_since = None if demand.slots else history.idle_since or now
    # At the start nothing is known of what was wanted, but for what there is.
    former = history.wanted or ((now, current),)
    remembered = _remember(former, wanted, now, timedelta(seconds=scaling.scale_down_delay_seconds))
    least = min(max(count for _, count in remembered), scaling.max_replicas, max(current, wanted))
    words = f"{demand.slots} slots wanted ({demand.ready} ready, {demand.leased} running, {demand.due_soon} due soon)"
    idle_until = idle_since + timedelta(seconds=scaling.idle_seconds_to_zero) if idle_since else now
    if wanted > current and scaling.scale_up_limit is not None and wanted - current > scaling.scale_up_limit:
        replicas, reason = current + scaling.scale_up_limit, Why.SCALE_UP_LIMIT
        words += f": {wanted} pods wanted"
    elif wanted >= current:
        replicas, reason = wanted, Why.DEMAND
    elif wanted == 0 and now < idle_until:
        replicas, reason = max(least, 1), Why.IDLE_DELAY
        words += f": none from {idle_until:%H:%M:%S}Z on"
    elif wanted < least and wanted > 0:
        replicas, reason = least, Why.SCALE_DOWN_DELAY
        words += f": {wanted} pods wanted"
    else:
        replicas, reason = wanted, Why.DEMAND
    if reason is Why.DEMAND and asked != wanted:
        reason = Why.AT_MAXIMUM if asked > wanted else Why.AT_MINIMUM
    return Decision(replicas, reason, words, ScalingHistory(remembered, idle_since))


def _remember(
    former: Sequence[tuple[datetime, int]], wanted: int, now: datetime, delay: timedelta
) -> tuple[tuple[datetime, int], ...]:
    """Falling numbers: what is followed by as many or more is no maximum any longer. Each stands for the time it was last wanted."""
    kept = [(when, count) for when, count in former if count > wanted and now - when < delay]
    return (*kept, (now, wanted))
