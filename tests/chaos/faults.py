"""The table of faults: how each is brought about, how it is taken back, and whether Redis keeps its data."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import urllib3

from tests.chaos import basic, servers
from tests.chaos.api_server import POOLS
from tests.chaos.ground import eventually
from tests.chaos.site import CONCURRENCY, Site
from tests.chaos.two_operators import two_operators

Act = Callable[[Site, Random], int]
OPERATOR, WORKER, STREAM = "operator", "worker", "stream"


@dataclass(frozen=True)
class Fault:
    """One of them. `act` brings it about, waits as long as it is to last, and takes it back; it returns how often it
    struck.
    """

    name: str
    part: str
    """What it hurts: two faults of one part do not go together."""
    act: Act
    says: tuple[str, str]
    """Where it is noticed first (operator's log, workers' logs, event stream), and by what: a piece of a log line, a
    kind of event."""
    intact: bool = True
    """Redis keeps its data."""


def warm(site: Site) -> list[str]:
    """Pods that have all their pool processes."""
    return [name for name, pids in site.pods().items() if len(pids) > CONCURRENCY]


def worker_clock(site: Site, random: Random) -> int:
    """A second pool whose clock is an hour ahead, or behind."""
    seconds = random.choice((3600, -3600))
    late = site.pool("late", 1, TASKFLOW_CHAOS_CLOCK=str(seconds))
    site.api.insist("POST", POOLS, late)
    try:
        eventually(
            lambda: [name for name in warm(site) if "_late-" in name], bool, 120, "the pool with the wrong clock"
        )
        time.sleep(site.away_seconds)
    finally:
        site.delete_pool("late")
    return 1


def operator_killed(site: Site, random: Random) -> int:
    """At a random moment, twice; the second may hit it while it starts."""
    for _ in range(2):
        site.kill("operator")
        time.sleep(random.uniform(0.3, 2.0))
    site.ready("operator")
    return 2


def operator_clock(site: Site, random: Random) -> int:
    """An hour ahead, right again, an hour behind, right again; for what the operator does at a time."""
    clock = site.code / "operator.clock"
    hours = [3600, -3600]
    random.shuffle(hours)
    try:
        for seconds in hours:
            clock.write_text(str(seconds))
            time.sleep(site.away_seconds)
            clock.write_text("0")
            time.sleep(site.away_seconds)
    finally:
        clock.unlink(missing_ok=True)
    return 2


def arm(site: Site, program: str, point: str, count: int) -> Path:
    """Arm a fault point; the file that is gone once it was reached."""
    armed = site.code / f"taskflow_{program}.armed"
    part = armed.with_suffix(".part")
    part.write_text(f"{point} {count} {secrets.token_hex(4)}")
    part.replace(armed)
    return armed


def at_point(point: str, passages: int, component: str | None, *, kick: bool = False) -> Act:
    """A kill at a fault point, at one of the next passages."""

    def act(site: Site, random: Random) -> int:
        if component is not None:
            site.expect_end(component)
        armed = arm(site, point.partition("-")[0], point, random.randint(1, passages))
        if kick:
            site.kill("operator")
        try:
            eventually(armed.exists, lambda there: not there, 120, f"fault point {point} reached")
        except TimeoutError:
            # It must not strike at another fault's time.
            armed.unlink(missing_ok=True)
            raise
        if component is not None:
            site.ready(component)
        return 2 if kick else 1

    return act


def rest_created(site: Site, random: Random) -> int:
    """The API dies after the Task was created and before it answered; the client tries again by the same name."""
    environment = site.stack.env()
    url = environment["TASKFLOW_API_URL"] + "/v1/namespaces/default/tasks"
    headers = {"Authorization": f"Bearer {environment['TASKFLOW_API_TOKEN']}"}
    name = f"rest-{random.getrandbits(32):08x}"
    wanted = {"name": name, "spec": {"handler": "chaos.quick"}}
    site.expect_end("api")
    arm(site, "api", "rest-created", 1)
    codes: list[int] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            codes.append(site.http.request("POST", url, json=wanted, headers=headers).status)
        except urllib3.exceptions.HTTPError:
            codes.append(0)
        if codes[-1] in (201, 409):
            break
        time.sleep(0.1)
    if 0 not in codes or codes[-1] != 409:
        raise AssertionError(f"expected no answer, then at last 409, found {codes}")
    site.created_over_rest.append(name)
    site.ready("api")
    return 1


def operator_part(name: str, point: str, passages: int, says: str, *, kick: bool = False) -> Fault:
    return Fault(name, "operator", at_point(point, passages, "operator", kick=kick), (OPERATOR, says))


AWAY = "dependency_unavailable"
STARTED = "operator_started"
TABLE = (
    Fault("worker-main", "worker", basic.worker_main, (STREAM, "lost")),
    Fault("worker-child", "worker", basic.worker_child, (STREAM, "lost")),
    Fault("worker-all", "worker", basic.worker_all, (STREAM, "lost")),
    Fault("worker-paused", "worker", basic.worker_paused, (STREAM, "lost")),
    Fault("worker-partition", "worker", servers.held("worker-redis", seconds=basic.PAUSE_SECONDS), (STREAM, "lost")),
    Fault("worker-claim", "worker", at_point("worker-claim", 8, None), (STREAM, "lost")),
    Fault("worker-finish", "worker", at_point("worker-finish", 8, None), (STREAM, "lost")),
    Fault("worker-finished", "worker", at_point("worker-finished", 8, None), (WORKER, "attempt_surrendered")),
    Fault("worker-clock", "worker", worker_clock, (WORKER, "worker_ready")),
    Fault("operator-killed", "operator", operator_killed, (OPERATOR, STARTED)),
    operator_part("operator-lead", "operator-lead", 1, STARTED, kick=True),
    operator_part("operator-enter", "operator-enter", 5, STARTED),
    operator_part("operator-send", "operator-send", 10, STARTED),
    operator_part("operator-publish", "operator-publish", 5, STARTED),
    operator_part("operator-write", "operator-write", 10, STARTED),
    operator_part("operator-written", "operator-written", 10, STARTED),
    operator_part("operator-settle", "operator-settle", 10, STARTED),
    operator_part("operator-acknowledge", "operator-acknowledge", 10, STARTED),
    operator_part("operator-acknowledged", "operator-acknowledged", 10, STARTED),
    operator_part("operator-history", "operator-history", 10, STARTED),
    operator_part("operator-tick", "operator-tick", 8, STARTED),
    operator_part("operator-tick-recorded", "operator-tick-recorded", 5, STARTED),
    operator_part("operator-cursor", "operator-cursor", 8, STARTED),
    operator_part("operator-cursor-written", "operator-cursor-written", 8, STARTED),
    Fault("operator-clock", "operator", operator_clock, (OPERATOR, "run_created")),
    Fault("two-operators", "operator", two_operators, (OPERATOR, "standing_by")),
    Fault("redis-restart", "redis", basic.redis_restart, (OPERATOR, AWAY)),
    Fault("redis-lost", "redis", basic.redis_lost, (OPERATOR, "recovering"), intact=False),
    Fault("redis-flush", "redis", basic.redis_flush, (OPERATOR, "recovering"), intact=False),
    Fault("redis-clients", "redis", basic.redis_clients, (OPERATOR, AWAY)),
    Fault("redis-partition", "redis", servers.held("redis", "worker-redis"), (OPERATOR, AWAY)),
    Fault("redis-slow", "redis", servers.slow(0.05, "redis", "worker-redis"), (OPERATOR, AWAY)),
    Fault("redis-full", "redis", servers.redis_full, (OPERATOR, AWAY)),
    Fault("postgres-stopped", "postgres", servers.stopped("postgres"), (OPERATOR, AWAY)),
    Fault("postgres-slow", "postgres", servers.slow(0.5, "postgres"), (OPERATOR, AWAY)),
    Fault("postgres-read-only", "postgres", servers.postgres_read_only, (OPERATOR, AWAY)),
    Fault("api-server-restart", "api-server", servers.stopped("kube-apiserver"), (OPERATOR, AWAY)),
    Fault("api-server-partition", "api-server", servers.held("kube-apiserver"), (OPERATOR, AWAY)),
    Fault("api-server-20-ticks", "api-server", servers.held("kube-apiserver", seconds=25), (OPERATOR, AWAY)),
    Fault("api-server-429", "api-server", servers.too_many_requests, (OPERATOR, AWAY)),
    Fault("watch-expired", "api-server", servers.watch_expired, (OPERATOR, "watch")),
    Fault("store-stopped", "store", servers.stopped("minio"), (WORKER, "waiting")),
    Fault("store-503", "store", servers.answered("minio"), (WORKER, "waiting")),
    Fault("rest-created", "rest", rest_created, (OPERATOR, "task_finished")),
)
PLAIN = tuple(
    Fault(name, part, act, (WORKER, ""), intact=name not in ("redis-lost", "redis-flush"))
    for name, part, act in (
        ("worker-main", "worker", basic.worker_main),
        ("worker-child", "worker", basic.worker_child),
        ("worker-all", "worker", basic.worker_all),
        ("worker-paused", "worker", basic.worker_paused),
        ("worker-partition", "worker", servers.held("worker-redis", seconds=basic.PAUSE_SECONDS)),
        ("redis-restart", "redis", basic.redis_restart),
        ("redis-lost", "redis", basic.redis_lost),
        ("redis-flush", "redis", basic.redis_flush),
        ("redis-clients", "redis", basic.redis_clients),
        ("redis-partition", "redis", servers.held("redis", "worker-redis")),
        ("redis-slow", "redis", servers.slow(0.05, "redis", "worker-redis")),
        ("redis-full", "redis", servers.redis_full),
    )
)
FAULTS = {fault.name: fault for fault in TABLE}
