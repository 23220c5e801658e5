"""The checks of `/readyz`, from ages and figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from taskflow_core.ledger.lag import Lag
from taskflow_operator.process.health import CheckResult, Level

REDIS_SECONDS = 10.0
STREAM_SECONDS = 60.0
WATCH_SECONDS = 90.0
API_SERVER_SECONDS = 15.0
"""With a Lease, which is renewed every 2 s."""
SLACK_SECONDS = 30.0
"""Added to the pause between two lists of all Tasks, without a Lease."""
OWN_GROUP, MIRROR_GROUP = "cr", "pg"


@dataclass(frozen=True)
class OperatorState:
    """What the operator knows about itself at a moment. Ages are in seconds."""

    standby: bool
    """It does not lead."""
    holder: str
    """The other process that leads; empty if there is none, or it is not known yet."""
    started: bool = False
    """It has read all Tasks, and its loops run."""
    confirmed: bool = True
    """Its leadership is beyond doubt."""
    failing_loops: Sequence[str] = ()
    redis_age: float = 0.0
    api_server_age: float = 0.0
    api_server_limit: float = API_SERVER_SECONDS
    watch_down: float = 0.0
    arrays_wait: float = 0.0
    """How long an array has waited for the history."""
    lags: Sequence[Lag] = field(default_factory=tuple)


def check_results(state: OperatorState) -> list[CheckResult]:
    """The results of all checks, in a fixed order."""
    api_server = _aged("API server", state.api_server_age, state.api_server_limit)
    if state.standby:
        if not state.holder:
            return [CheckResult("role", Level.FAILED, "standby: nobody leads yet"), api_server]
        # A standby is ready when it can take over. It serves nothing, so it does not need what the leader needs.
        return [CheckResult("role", Level.OK, f"standby: {state.holder} leads"), api_server]
    found = [CheckResult("role", Level.OK, "leader") if state.confirmed else _doubt()]
    if not state.started:
        return [*found, CheckResult("start", Level.FAILED, "has not read all Tasks yet"), api_server]
    found += [CheckResult("loop", Level.FAILED, f"{name} ended; the log says why") for name in state.failing_loops]
    found += [_aged("Redis", state.redis_age, REDIS_SECONDS), api_server]
    if state.watch_down > WATCH_SECONDS:
        found.append(CheckResult("watch", Level.FAILED, f"none for {state.watch_down:.0f} s; the log says why"))
    elif state.watch_down:
        found.append(CheckResult("watch", Level.DEGRADED, f"starts again; none for {state.watch_down:.0f} s"))
    else:
        found.append(CheckResult("watch", Level.OK, "runs"))
    if state.arrays_wait > STREAM_SECONDS:
        # As when ends of arrays are not acknowledged, which nobody may have yet.
        message = f"an array has waited for PostgreSQL for {state.arrays_wait:.0f} s"
        found.append(CheckResult("arrays", Level.FAILED, message))
    return [*found, *(_lag(lag) for lag in state.lags)]


def _doubt() -> CheckResult:
    return CheckResult("role", Level.FAILED, "leader in doubt: the Lease could not be renewed, so nothing is written")


def _aged(what: str, age: float, limit: float) -> CheckResult:
    if age > limit:
        return CheckResult(what, Level.FAILED, f"has not answered for {age:.0f} s")
    return CheckResult(what, Level.OK, f"answered {age:.0f} s ago")


def _lag(lag: Lag) -> CheckResult:
    names = {OWN_GROUP: "events to resources", MIRROR_GROUP: "events to PostgreSQL"}
    message = f"{lag.entries} waiting, the oldest for {lag.seconds:.0f} s"
    late = lag.seconds > STREAM_SECONDS
    # Work continues without history, and a restart does not bring PostgreSQL back. And whoever floods a stream of its
    # own must not make the operator unready for all.
    failed = lag.group == OWN_GROUP and lag.general
    level = (Level.FAILED if failed else Level.DEGRADED) if late else Level.OK
    return CheckResult(names.get(lag.group, lag.group), level, message)
