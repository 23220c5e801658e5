from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from taskflow_worker.process import pool_process
from taskflow_worker.process.pool_process import forget_vanished, replacing_if_it_fails

GONE, RUNS, FOREIGN = 10, 11, 12


@dataclass
class FakeJob:
    pid: int
    is_ready: bool = False

    def worker_pids(self) -> list[int]:
        return [self.pid]

    def ready(self) -> bool:
        return self.is_ready


@dataclass
class FakePool:
    pids: list[int]
    jobs: list[FakeJob] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pool = [SimpleNamespace(pid=pid, _popen=SimpleNamespace(pid=pid, returncode=None)) for pid in self.pids]
        self._cache = dict(enumerate(self.jobs))

    def on_job_process_lost(self, _: Any, pid: int, __: int) -> None:
        self.lost.append(pid)

    @property
    def ended(self) -> list[int]:
        return [process.pid for process in self._pool if process._popen.returncode is not None]


def test_a_process_that_is_gone_ends_for_billiard_too() -> None:
    pool = FakePool([GONE, RUNS])
    forget_vanished(pool, lambda pid: pid == GONE)
    assert pool.ended == [GONE]


@pytest.mark.parametrize(
    ("job", "lost"),
    [
        (FakeJob(FOREIGN), [FOREIGN]),
        (FakeJob(FOREIGN, is_ready=True), []),
        # billiard sees to the jobs of its own processes.
        (FakeJob(GONE), []),
        (FakeJob(RUNS), []),
    ],
)
def test_a_job_of_a_process_outside_of_the_pool_is_lost_when_that_is_gone(job: FakeJob, lost: list[int]) -> None:
    pool = FakePool([GONE, RUNS], [job])
    forget_vanished(pool, lambda pid: pid in (GONE, FOREIGN))
    assert pool.lost == lost


def test_a_process_in_which_celery_itself_fails_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, str] = {}
    monkeypatch.setattr(pool_process, "_of_this_process", asked)

    def run(value: int) -> int:
        if value < 0:
            raise RuntimeError("the registry is empty")
        return value

    guarded = replacing_if_it_fails(run)
    assert guarded(3) == 3
    assert asked == {}
    with pytest.raises(RuntimeError, match="the registry is empty"):
        guarded(-1)
    assert asked == {os.getpid(): "Celery failed outside of its task: RuntimeError: the registry is empty"}
