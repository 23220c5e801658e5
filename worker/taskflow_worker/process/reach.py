"""Whether a worker that starts reaches Redis. If it does not, it ends and says why, instead of waiting without a word.

The kubelet starts it again, with the credentials that the Secret has then, and `CrashLoopBackOff` with the last words
of the container is what pool and Tasks show.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from urllib.parse import urlsplit

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_sync, redis_errors
from taskflow_core.service_urls import sentinels_of
from taskflow_core.settings import RedisSettings
from taskflow_core.telemetry.logs import get_logger
from taskflow_worker.readiness import Mark

log = get_logger(__name__)
REFUSED_SECONDS = 20.0
"""How long a Redis is asked that refuses the login: one that was just restarted may not have its users yet."""
SECONDS = 60.0
"""How long a Redis is asked that does not answer."""
PAUSE_SECONDS = 1.0


def reach_redis(settings: RedisSettings, name: str) -> str | None:
    """Wait until Redis answers. Returns why it does not, or None once it does. SIGTERM ends the process with code 0.

    Args:
        settings: where Redis is, and the login.
        name: the worker's, for its readiness.
    """
    mark = Mark(name)
    client = connect_sync(settings)
    # The first process of a container ignores signals that it does not handle.
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        return wait_for(lambda: _ping(client), place(settings), mark)
    finally:
        signal.signal(signal.SIGTERM, before)
        client.connection_pool.disconnect()


def wait_for(
    ping: Callable[[], None],
    where: str,
    mark: Mark,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Call `ping` until it succeeds, or for too long; returns why it did not succeed.

    Args:
        ping: raises `Unavailable`.
        where: the server, without a login.
        mark: says why the worker is not ready.
        clock: monotonic seconds.
        sleep: waits for seconds.
    """
    mark.remove()
    began, said = clock(), ""
    while True:
        try:
            ping()
        except Unavailable as error:
            refused = isinstance(error.__cause__, (AuthenticationError, NoPermissionError))
            what = "refuses the login of this worker" if refused else "does not answer"
            why = f"{where} {what}: {str(error).removeprefix('Redis: ')}"
        else:
            mark.remove()
            return None
        if why != said:
            log.warning("waiting", what="redis", error=why)
            said = why
        mark.not_ready(why)
        if clock() - began >= (REFUSED_SECONDS if refused else SECONDS):
            return why
        sleep(PAUSE_SECONDS)


def place(settings: RedisSettings) -> str:
    """Host and port of Redis, or of its Sentinels, for people."""
    found = settings.url.get_secret_value()
    if (sentinels := sentinels_of(found)) is not None:
        where = ", ".join(f"{host}:{port}" for host, port in sentinels.addresses)
        return f"Redis {sentinels.name} of the Sentinels {where}"
    url = urlsplit(found)
    return f"Redis at {url.hostname}:{url.port or 6379}"


def _ping(client: redis.Redis) -> None:
    with redis_errors():
        client.ping()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
