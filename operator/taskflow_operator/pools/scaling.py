"""How many pods a pool needs, from a snapshot of its queues and the time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from taskflow_core.domain.workerpool import Scaling


class Why(StrEnum):
    """Reasons of a decision."""

    DEMAND = "Demand"
    """As many as the demand needs."""
    SCALE_UP_LIMIT = "ScaleUpLimit"
    """More are needed, but not added in one step."""
    SCALE_DOWN_DELAY = "ScaleDownDelay"
    """Fewer are needed, but not for long enough."""
    IDLE_DELAY = "IdleDelay"
    """None is needed, but not for long enough."""
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"
    PAUSED = "Paused"
    DRAINING = "Draining"


@dataclass(frozen=True)
class Demand:
    """Work that waits for a pool or runs in it, in slots."""

    ready: int = 0
    """Queued attempts, in a list of the broker or on their way."""
    leased: int = 0
    due_soon: int = 0
    """Attempts that become due before a new pod could start."""
    oldest_seconds: float = 0.0
    """How long the oldest attempt has been ready."""

    @property
    def slots(self) -> int:
        """The sum."""
        return self.ready + self.leased + self.due_soon


@dataclass(frozen=True)
class ScalingHistory:
    """What is remembered of earlier decisions. Empty after a start, which only delays scaling down."""

    wanted: tuple[tuple[datetime, int], ...] = ()
    """How many pods were needed and when, in the last `scale_down_delay_seconds`; falling numbers."""
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

    wanted = ceil(demand / tasksPerReplica), between minReplicas and maxReplicas. Scaling up happens at once, by at most
    scaleUpLimit. Scaling down goes to the largest number that was needed in the last scaleDownDelaySeconds, and to zero
    after idleSecondsToZero without any demand.
    """
    per_pod = scaling.tasks_per_replica or concurrency
    asked = -(-demand.slots // per_pod)
    wanted = min(max(asked, scaling.min_replicas), scaling.max_replicas)
    idle_since = None if demand.slots else history.idle_since or now
    # After a start nothing is known of earlier needs, except the pods that exist.
    former = history.wanted or ((now, current),)
    remembered = _remember(former, wanted, now, timedelta(seconds=scaling.scale_down_delay_seconds))
    least = min(max(count for _, count in remembered), scaling.max_replicas, max(current, wanted))
    message = f"{demand.slots} slots wanted ({demand.ready} ready, {demand.leased} running, {demand.due_soon} due soon)"
    idle_until = idle_since + timedelta(seconds=scaling.idle_seconds_to_zero) if idle_since else now
    if wanted > current and scaling.scale_up_limit is not None and wanted - current > scaling.scale_up_limit:
        replicas, reason = current + scaling.scale_up_limit, Why.SCALE_UP_LIMIT
        message += f": {wanted} pods wanted"
    elif wanted >= current:
        replicas, reason = wanted, Why.DEMAND
    elif wanted == 0 and now < idle_until:
        replicas, reason = max(least, 1), Why.IDLE_DELAY
        message += f": none from {idle_until:%H:%M:%S}Z on"
    elif wanted < least and wanted > 0:
        replicas, reason = least, Why.SCALE_DOWN_DELAY
        message += f": {wanted} pods wanted"
    else:
        replicas, reason = wanted, Why.DEMAND
    if reason is Why.DEMAND and asked != wanted:
        reason = Why.AT_MAXIMUM if asked > wanted else Why.AT_MINIMUM
    return Decision(replicas, reason, message, ScalingHistory(remembered, idle_since))


def _remember(
    former: Sequence[tuple[datetime, int]], wanted: int, now: datetime, delay: timedelta
) -> tuple[tuple[datetime, int], ...]:
    """Falling numbers: one that is followed by as many or more is no maximum any longer. Each has the time when it was
    last needed.
    """
    kept = [(when, count) for when, count in former if count > wanted and now - when < delay]
    return (*kept, (now, wanted))
