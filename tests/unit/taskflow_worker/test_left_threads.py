from __future__ import annotations

import json.decoder
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as executor_module

import pytest

from taskflow_worker.process.left_threads import harmless, left_behind

LIBRARY = ("queue", json.decoder.__file__, "get")
HANDLER = ("mine.jobs", "/app/mine/jobs.py", "loop")
PACKAGED = ("mine.jobs", json.decoder.__file__, "loop")
IDLE = ("concurrent.futures.thread", executor_module.__file__, "_worker")


@pytest.mark.parametrize(
    ("stack", "daemon", "calls", "expected"),
    [
        ([LIBRARY, LIBRARY], True, "tqdm", True),
        # Python would wait for it at its end, so somebody counts on it.
        ([LIBRARY], False, "tqdm", False),
        ([LIBRARY, HANDLER], True, "", False),
        # Handlers are often installed beside the libraries.
        ([LIBRARY, PACKAGED], True, "", False),
        # A timer that still waits has nothing of the handler on its stack.
        ([LIBRARY], True, "mine.jobs", False),
        ([IDLE, LIBRARY], False, "", True),
        ([HANDLER, IDLE, LIBRARY], False, "", False),
    ],
)
def test_which_threads_may_stay(stack: list[tuple[str, str, str]], daemon: bool, calls: str, expected: bool) -> None:
    assert harmless(stack, daemon, calls, {"mine"}) is expected


def test_threads_that_were_there_before_and_those_that_end_are_not_left() -> None:
    end = threading.Event()
    older = threading.Thread(target=end.wait)
    older.start()
    before = set(threading.enumerate())
    newer = threading.Thread(target=end.wait, name="newer")
    newer.start()
    try:
        assert left_behind(before, {"mine"}) == ["newer"]
        end.set()
        newer.join()
        assert left_behind(before, {"mine"}) == []
    finally:
        end.set()
        older.join()


def test_an_idle_executor_may_stay_and_a_busy_one_may_not() -> None:
    before = set(threading.enumerate())
    end = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(int).result()
        assert left_behind(before, {"mine"}) == []
        executor.submit(end.wait)
        try:
            assert len(left_behind(before, {"mine"})) == 1
        finally:
            end.set()
