"""Whether another attempt follows a failed one, and when."""

from __future__ import annotations

from dataclasses import dataclass

from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.domain.task import RetryPolicy

_ALIASES = {
    "IOError": "OSError",
    "EnvironmentError": "OSError",
    "socket.error": "OSError",
    "select.error": "OSError",
    "socket.timeout": "TimeoutError",
    "asyncio.TimeoutError": "TimeoutError",
    "concurrent.futures.TimeoutError": "TimeoutError",
}
"""Further names that Python gives to built-in errors. An error tells only the name of its class."""


@dataclass(frozen=True)
class Retry:
    """Another attempt follows."""

    delay_seconds: int
    counts: bool
    """The attempt that ended counts against `maxAttempts`."""


@dataclass(frozen=True)
class GiveUp:
    """The Task fails."""


def after_failure(
    policy: RetryPolicy, *, counted: int, failure: Failure, draw: float, spared: bool = False
) -> Retry | GiveUp:
    """What follows an attempt that ended badly.

    Args:
        policy: the Task's.
        counted: attempts that count so far, the one that ended included.
        failure: how it ended.
        draw: a random number of [0, 1).
        spared: another attempt may have caused the failure, so this one does not count.

    The delay before attempt n+1 is min(max, backoff * factor^(n-1)) seconds, longer by at most `jitterPercent`.
    """
    if failure.reason is Reason.DRAIN:
        return Retry(delay_seconds=0, counts=False)
    if not spared and (failure.reason.final or counted >= policy.max_attempts or not _may_retry(policy, failure)):
        return GiveUp()
    delay = policy.backoff_seconds
    for _ in range(counted - 1):
        if delay == 0 or delay >= policy.max_backoff_seconds:
            break
        delay *= policy.backoff_factor
    delay = min(delay, policy.max_backoff_seconds)
    return Retry(delay_seconds=delay + int(delay * draw * policy.jitter_percent / 100), counts=not spared)


def _may_retry(policy: RetryPolicy, failure: Failure) -> bool:
    if failure.reason is not Reason.HANDLER_ERROR:
        return True
    names = _names(failure)
    if any(_ALIASES.get(name, name) in names for name in policy.no_retry_on):
        return False
    return not policy.retry_on or any(_ALIASES.get(name, name) in names for name in policy.retry_on)


def _names(failure: Failure) -> set[str]:
    """What the error may be called: its type and each base class of that, dotted and by the last part."""
    dotted = {failure.type, *failure.classes}
    builtins = {f"builtins.{name}" for name in dotted if "." not in name}
    return dotted | builtins | {name.rpartition(".")[2] for name in dotted}
