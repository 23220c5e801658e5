from __future__ import annotations

import subprocess
import sys

import pytest

from taskflow_core.telemetry.logs import own_stdout

FORKED = """
import logging, os, sys, threading, time
from taskflow_core.telemetry.logs import own_stdout

reader, writer = os.pipe()
os.dup2(writer, 1)
handler = logging.StreamHandler(own_stdout())
logging.getLogger().addHandler(handler)
threading.Thread(target=lambda: [logging.error("x" * 5000) for _ in range(100)], daemon=True).start()
# The thread holds the lock for good, once the pipe is full.
held = 0
while held < 50:
    free = handler.lock.acquire(timeout=0.01)
    if free:
        handler.lock.release()
    held = 0 if free else held + 1
child = os.fork()
if not child:
    os.dup2(os.open(os.devnull, os.O_WRONLY), handler.stream.fileno())
    logging.error("from the child")
    os._exit(7)
deadline = time.monotonic() + 20
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
    time.sleep(0.01)
print(os.waitstatus_to_exitcode(ended[1]) if ended[0] else "hangs", file=sys.stderr, end="")
if not ended[0]:
    os.kill(child, 9)
os._exit(0)
"""


def test_a_fork_while_a_thread_writes_can_log() -> None:
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == "7"


def test_a_line_of_any_length_and_of_any_characters_is_written_whole(capfd: pytest.CaptureFixture[str]) -> None:
    stream = own_stdout()
    stream.write("ä" * 300_000 + "\udc80\n")
    stream.close()
    assert capfd.readouterr().out == "ä" * 300_000 + "\\udc80\n"
