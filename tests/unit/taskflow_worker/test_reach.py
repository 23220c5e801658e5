from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.exceptions import AuthenticationError

from taskflow_core.errors import Unavailable
from taskflow_core.settings import RedisSettings
from taskflow_worker.process.reach import REFUSED_SECONDS, SECONDS, place, wait_for
from taskflow_worker.readiness import Mark, problem


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


class Server:
    """Answers after a number of pings; each takes a second of a clock."""

    def __init__(self, error: Exception | None, answers_after: int = 1_000_000) -> None:
        self.now, self.pings, self._error, self._after = 0.0, 0, error, answers_after

    def ping(self) -> None:
        self.pings += 1
        if self.pings <= self._after:
            raise Unavailable(f"Redis: {self._error}") from self._error

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self) -> str | None:
        return wait_for(self.ping, "Redis at r:6379", Mark("w"), clock=lambda: self.now, sleep=self.sleep)


def test_a_redis_that_answers_is_asked_once() -> None:
    server = Server(None, 0)
    assert server.wait() is None
    assert server.pings == 1


def test_a_redis_that_comes_in_time_is_waited_for() -> None:
    server = Server(ConnectionRefusedError("refused"), 30)
    assert server.wait() is None
    assert server.now == 30


def test_a_redis_that_does_not_come_ends_the_worker_with_the_cause() -> None:
    server = Server(ConnectionRefusedError("refused"))
    assert server.wait() == "Redis at r:6379 does not answer: refused"
    assert server.now == SECONDS


def test_a_login_that_is_refused_ends_the_worker_sooner_and_its_readiness_says_why() -> None:
    server = Server(AuthenticationError("invalid username-password pair"))
    why = "Redis at r:6379 refuses the login of this worker: invalid username-password pair"
    assert server.wait() == why
    assert server.now == REFUSED_SECONDS
    assert problem("w", time.time()) == why


def test_the_place_of_redis_has_no_part_of_the_login() -> None:
    settings = RedisSettings(url=SecretStr("redis://user:pa55@redis.example/0"))
    assert place(settings) == "Redis at redis.example:6379"
    settings = RedisSettings(url=SecretStr("redis+sentinel://user:pa55@one.example,two.example:5/main/0"))
    assert place(settings) == "Redis main of the Sentinels one.example:26379, two.example:5"
