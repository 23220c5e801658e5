from __future__ import annotations

from dataclasses import dataclass

from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import RetryPolicy


@dataclass(frozen=True)
class Retry:
    """Another attempt follows."""

    delay_seconds: int
    counts: bool
    """The attempt that ended counts against `maxAttempts`."""


@dataclass(frozen=True)
class GiveUp:
    """The Task fails."""


def after_failure(policy: RetryPolicy, *, counted: int, reason: Reason) -> Retry | GiveUp:
    """What follows an attempt that ended for `reason`.

    Args:
        policy: the Task's.
        counted: attempts that count so far, the one that ended included.
        reason: how it ended.

    The delay before attempt n+1 is min(max, backoff * factor^(n-1)) seconds.
    """
    if reason is Reason.DRAIN:
        return Retry(delay_seconds=0, counts=False)
    if reason.final or counted >= policy.max_attempts:
        return GiveUp()
    delay = policy.backoff_seconds
    for _ in range(counted - 1):
        if delay == 0 or delay >= policy.max_backoff_seconds:
            break
        delay *= policy.backoff_factor
    return Retry(delay_seconds=min(delay, policy.max_backoff_seconds), counts=True)
