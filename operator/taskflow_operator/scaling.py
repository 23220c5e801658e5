"""How many workers a pool wants: pure, from a snapshot of its queues and the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from taskflow_core.domain.task import Model


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
class Past:
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
    past: Past


def decide(
    scaling: Scaling, concurrency: int, current: int, demand: Demand, past: Past, now: datetime
) -> Decision:
    """How many pods there should be.

    wanted = ceil(demand / tasksPerReplica), within minReplicas and maxReplicas. Up at once, by at most scaleUpLimit. Down to the
    most that was wanted in the last scaleDownDelaySeconds; to none after idleSecondsToZero without any demand.
    """
    per_pod = scaling.tasks_per_replica or concurrency
    asked = -(-demand.slots // per_pod)
    wanted = min(max(asked, scaling.min_replicas), scaling.max_replicas)
    idle_since = None if demand.slots else past.idle_since or now
    # At the start nothing is known of what was wanted, but for what there is.
    remembered = _remember(past.wanted or ((now, current),), wanted, now, timedelta(seconds=scaling.scale_down_delay_seconds))
    keep = Past(remembered, idle_since)
    words = f"{demand.slots} slots wanted ({demand.ready} ready, {demand.leased} running, {demand.due_soon} due soon)"

    def answer(replicas: int, reason: Why, more: str = "") -> Decision:
        return Decision(replicas, reason, f"{words}{more}", keep)

    if wanted > current:
        if scaling.scale_up_limit is not None and wanted - current > scaling.scale_up_limit:
            return answer(current + scaling.scale_up_limit, Why.SCALE_UP_LIMIT, f": {wanted} pods wanted")
        return answer(wanted, Why.AT_MAXIMUM if asked > wanted else Why.DEMAND)
    least = min(max(count for _, count in remembered), scaling.max_replicas)
    if wanted == 0 and idle_since is not None:
        until = idle_since + timedelta(seconds=scaling.idle_seconds_to_zero)
        if now < until:
            stay = min(max(least, 1), current)
            return answer(stay, Why.IDLE_DELAY, f": none from {until:%H:%M:%S}Z on")
        return answer(0, Why.DEMAND)
    if wanted < min(least, current):
        return answer(min(least, current), Why.SCALE_DOWN_DELAY, f": {wanted} pods wanted")
    if asked > wanted:
        return answer(wanted, Why.AT_MAXIMUM)
    return answer(wanted, Why.AT_MINIMUM if asked < wanted else Why.DEMAND)


def _remember(
    former: Sequence[tuple[datetime, int]], wanted: int, now: datetime, delay: timedelta
) -> tuple[tuple[datetime, int], ...]:
    """Falling numbers: what is followed by as many or more is no maximum any longer. Each stands for the time it was last wanted."""
    kept = [(when, count) for when, count in former if count > wanted and now - when < delay]
    return (*kept, (now, wanted))
