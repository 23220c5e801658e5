"""Two operators at once: the leader is paused until a standby has taken over, then goes on in the belief that it
leads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from random import Random

import urllib3

from taskflow_local.state import Ports
from tests.chaos.ground import eventually
from tests.chaos.site import Site

TAKEOVER_SECONDS = 120


def two_operators(site: Site, random: Random) -> int:
    """Takes about 20 seconds: a Lease has to run out."""
    with Ports() as ports:
        port = ports.choose({}, ["health"])["health"]
    environment = site.stack.component_env("operator") | {
        "TASKFLOW_LEADER_IDENTITY": "second",
        "TASKFLOW_HEALTH_PORT": str(port),
    }

    def says(word: str) -> bool:
        try:
            answer = site.http.request("GET", f"http://127.0.0.1:{port}/readyz?verbose")
        except urllib3.exceptions.HTTPError:
            return False
        return word in answer.data.decode()

    with (site.folder / "second.log").open("ab") as output:
        second = subprocess.Popen(
            [sys.executable, "-m", "taskflow_operator"], env=environment, stdout=output, stderr=output
        )
    first = site.stack.pid("operator")
    try:
        eventually(lambda: says("role: ok: standby"), bool, 120, "the second operator stands by")
        site.expect_end("operator")
        if first is not None:
            os.kill(first, signal.SIGSTOP)
        eventually(lambda: says("role: ok: leader"), bool, TAKEOVER_SECONDS, "the second operator leads")
    finally:
        if first is not None:
            os.kill(first, signal.SIGCONT)
    try:
        # It finds another name in the Lease, ends, and is started again, as a standby.
        eventually(lambda: site.stack.pid("operator") not in (None, first), bool, 120, "the first operator ended")
        site.ready("operator")
    finally:
        second.send_signal(signal.SIGTERM)
        second.wait(40)
    return 2
