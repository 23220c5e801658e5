"""`python -m tests.attack [--seconds 600] [--rate 300] [--seed 1]`: random commands of a hostile worker, for a while.

Beside it a victim creates a Task each second. Before the attack it does so for a while, too: the slowest of those Tasks
is the floor. Exit code 0: no Task of the victim took more than twice as long as the floor, each succeeded in its first
attempt, and no process was started again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence

from redis.exceptions import NoPermissionError, RedisError

from taskflow_core.broker import acl
from taskflow_core.ledger.connect import script
from tests.attack.commands import Generator, rights
from tests.attack.conftest import standing_site
from tests.attack.site import EVIL, VICTIM, Site

FLOOR_SECONDS = 30
SCRIPTS = ("claim", "finish", "heartbeat", "surrender", "presence")
"""Those that workers run."""
LEAST_SECONDS = 1.0
"""A floor below this is one of a machine that did nothing else."""


def trickle(site: Site, until: float) -> list[float]:
    """How long Tasks of the victim take, one created each second."""
    took = []
    while time.monotonic() < until:
        began = time.monotonic()
        found = site.finished(site.create(VICTIM, "taskflow.echo", args=[1]), 120)
        took.append(time.monotonic() - began)
        assert (found["status"]["phase"], found["status"]["attempts"]) == ("Succeeded", 1), found["status"]
        time.sleep(max(0.0, 1 - took[-1]))
    return took


def attack(site: Site, dice: random.Random, stop: threading.Event, rate: int, came: Counter[str]) -> None:
    """Send random commands until stopped, and count what comes of them."""
    user = site.admin.execute_command("ACL", "GETUSER", acl.worker_user(EVIL))
    entries = user if isinstance(user, dict) else dict(zip(user[0::2], user[1::2], strict=True))
    admitted = rights({key.decode() if isinstance(key, bytes) else key: value for key, value in entries.items()})
    waiting = [site.create(EVIL, "taskflow.echo", queue="by-hand")["metadata"]["uid"] for _ in range(20)]
    known = [*waiting, *(f"{uid}:1" for uid in waiting), VICTIM, EVIL, "1"]
    digests = [str(site.admin.script_load(script(name))) for name in SCRIPTS]
    generator = Generator(dice, admitted, known, digests)
    while not stop.is_set():
        began = time.monotonic()
        for _ in range(max(1, rate // 10)):
            try:
                site.hostile.execute_command(*generator.command())
                came["done"] += 1
            except NoPermissionError:
                came["refused"] += 1
            except (RedisError, ValueError, TypeError):
                # The last two are of the client, which makes sense of no such answer.
                came["wrong"] += 1
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rate", type=int, default=300, help="commands a second")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}")
    with standing_site() as site:
        site.note_processes()
        floor = max(LEAST_SECONDS, *trickle(site, time.monotonic() + FLOOR_SECONDS))
        stop, came = threading.Event(), Counter[str]()
        thread = threading.Thread(
            target=attack,
            args=(site, random.Random(chosen.seed), stop, chosen.rate, came),
            daemon=True,
        )
        thread.start()
        try:
            took = trickle(site, time.monotonic() + chosen.seconds)
        finally:
            stop.set()
            thread.join(60)
        site.assert_unharmed()
        late = [each for each in took if each > 2 * floor]
        refused = site.metric("taskflow_events_refused_total", consumer="cr")
        aside = site.metric("taskflow_namespaces_set_aside_total", namespace=EVIL)
        print(f"commands: {dict(came)}; events refused: {refused:.0f}; set aside: {aside:.0f} times")
        print(
            f"victim: {len(took)} Tasks, median {statistics.median(took):.2f} s, slowest {max(took):.2f} s, "
            f"floor {floor:.2f} s, late {len(late)}"
        )
        return 1 if late or not sum(came.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
