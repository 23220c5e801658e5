from __future__ import annotations

import subprocess
import sys

import pytest

from taskflow_worker.sdk.forks import exit_code, same_process


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 1),
        (SystemExit(), 0),
        (SystemExit(None), 0),
        (SystemExit(3), 3),
        (SystemExit(-1), 255),
        (SystemExit("words"), 1),
    ],
)
def test_a_forked_process_has_the_exit_code_of_a_program(error: BaseException | None, code: int) -> None:
    assert exit_code(error) == code


def test_the_process_itself_goes_on() -> None:
    with same_process():
        pass
    with pytest.raises(SystemExit), same_process():
        raise SystemExit(3)


SCRIPT = """
import asyncio, os, sys
from taskflow_worker.sdk.forks import in_same_process, same_process

def work(what):
    if os.fork() == 0:
        print("child")
        if what == "raise":
            raise ValueError("by the child")
        return
    print("status", os.waitstatus_to_exitcode(os.wait()[1]))

async def coroutine():
    work("return")

try:
    if sys.argv[1] == "coroutine":
        asyncio.run(in_same_process(coroutine()))
    else:
        with same_process():
            work(sys.argv[1])
finally:
    print("after")
"""


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("return", 0, "returned from the handler and ends here"),
        ("raise", 1, "ValueError: by the child"),
        ("coroutine", 0, "returned from the handler and ends here"),
    ],
)
def test_a_forked_process_ends_at_once_and_says_why(what: str, status: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, what], capture_output=True, text=True, check=True)
    # What it printed is not lost, and nothing after the context runs in it.
    assert sorted(done.stdout.splitlines()) == ["after", "child", f"status {status}"]
    assert words in done.stderr
