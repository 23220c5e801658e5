"""`python -m tests.chaos`: Tasks through a stack of its own while it is hurt; a table, and what was wrong."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.chaos import control
from tests.chaos.faults import FAULTS, PLAIN, TABLE
from tests.chaos.rounds import HEAD, Line, Round, shown
from tests.chaos.site import Site

MIXED_TASKS = 2500
"""Of one round with all faults side by side."""


def say(text: str) -> None:
    """One line at once."""
    print(text, flush=True)


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=60, help="Tasks of each round with one fault, at least")
    parser.add_argument(
        "--mixed",
        type=int,
        default=400,
        help=f"Tasks of the rounds with all faults side by side, {MIXED_TASKS} a round; 0: none",
    )
    parser.add_argument("--strikes", type=int, default=2, help="faults of each part in a mixed round")
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault alone; 0: only mixed")
    parser.add_argument("--faults", default=",".join(FAULTS), help="names, separated by commas; default: all")
    parser.add_argument("--sample", type=int, default=0, help="so many faults of each part, chosen by the seed; 0: all")
    parser.add_argument("--rate", type=float, default=20, help="Tasks created per second")
    parser.add_argument(
        "--rest", type=float, default=6, help="seconds between faults of one part in a mixed round, at most"
    )
    parser.add_argument("--away", type=float, default=5, help="seconds that what is taken away stays away")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; default: a new one")
    parser.add_argument("--keep", action="store_true", help="keep the logs even if nothing was wrong")
    parser.add_argument("--no-control", action="store_true", help="leave out plain Celery under the same faults")
    found = parser.parse_args()
    unknown = [name for name in found.faults.split(",") if name not in FAULTS]
    if unknown:
        parser.error(f"unknown fault {unknown[0]!r}: expected some of {', '.join(FAULTS)}")
    return found


def sampled(names: Sequence[str], count: int, seed: int) -> list[str]:
    """So many of each part, in their order."""
    random = Random(f"{seed}/sample")
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(FAULTS[name].part, []).append(name)
    chosen = {name for mine in parts.values() for name in random.sample(mine, min(count, len(mine)))}
    return [name for name in names if name in chosen]


def alone(site: Site, asked: argparse.Namespace, seed: int) -> list[Line]:
    """Each fault by itself."""
    lines = []
    for number in range(asked.rounds):
        for name in asked.faults.split(","):
            # From seed and name, so that one fault can be repeated without those before it.
            random = Random(f"{seed}/{number}/{name}")
            line = Round(site, f"{name}-{number}" if number else name, asked.tasks, asked.rate, random).run(
                [[FAULTS[name]]]
            )
            lines.append(line)
            tell(line)
    return lines


def mixed(site: Site, asked: argparse.Namespace, seed: int) -> list[Line]:
    """Faults of all parts side by side, of each part one after the other; round by round, since an API server that is
    started again while it holds many thousands of Tasks needs longer to read them than it then lives.
    """
    lines: list[Line] = []
    chosen = [fault for fault in TABLE if fault.name in asked.faults.split(",")]
    left = asked.mixed
    while left > 0:
        name, tasks = f"mixed-{len(lines)}", min(left, MIXED_TASKS)
        random = Random(f"{seed}/{name}")
        lanes = []
        for part in dict.fromkeys(fault.part for fault in chosen):
            mine = [fault for fault in chosen if fault.part == part]
            lanes.append([random.choice(mine) for _ in range(asked.strikes)])
        say(f"{name}: " + "; ".join(", ".join(fault.name for fault in lane) for lane in lanes))
        line = Round(site, name, tasks, asked.rate, random, rest=asked.rest).run(lanes)
        tell(line)
        lines.append(line)
        left -= tasks
        if left:
            site.api.delete_tasks()
    return lines


def compare(asked: argparse.Namespace, seed: int) -> None:
    """Plain Celery under the faults that it can meet. What it loses is no fault of ours: it changes no exit code."""
    chosen = [fault for fault in PLAIN if fault.name in asked.faults.split(",")]
    if asked.no_control or not chosen:
        return
    say("\nplain Celery: acks_late, reject_on_worker_lost, visibility timeout 6 s; the same load and faults")
    folder = Path(tempfile.mkdtemp(prefix="taskflow-chaos-"))
    plain = control.Plain(folder, away_seconds=asked.away)
    try:
        plain.up(say)
        control.run(plain, chosen, asked.tasks, asked.rate, seed, tell)
    finally:
        plain.down()
    shutil.rmtree(folder)


def tell(line: Line) -> None:
    """One line, and what was wrong."""
    say(shown(line))
    for each in (*line.missed, *line.violations[:10]):
        say(f"    {each}")


def leftover_processes(folder: Path) -> list[str]:
    """Processes that still live in our folder; they end here."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            text = command + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and int(entry.name) != os.getpid():
            found.append(f"process {entry.name} was left behind: {command[:100]!r}")
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
    return found


def main() -> int:
    """Start, hurt, judge, stop; 1 when anything was wrong."""
    asked = arguments()
    seed = asked.seed if asked.seed is not None else secrets.randbits(32)
    say(f"SEED={seed}")
    if asked.sample:
        asked.faults = ",".join(sampled(asked.faults.split(","), asked.sample, seed))
    folder = Path(tempfile.mkdtemp(prefix="taskflow-chaos-"))
    folder.chmod(0o711)
    site = Site(folder, away_seconds=asked.away)
    lines: list[Line] = []
    began = time.monotonic()
    try:
        site.up(say)
        say(HEAD)
        lines += alone(site, asked, seed)
        lines += mixed(site, asked, seed)
        site.delete_pool("main")
    finally:
        site.down()
        left = leftover_processes(folder)
    compare(asked, seed)
    wrong = sum(len(line.violations) for line in lines) + len(left)
    counts = ("tasks", "ticks", "struck", "lost", "beyond", "ticks_twice", "ticks_lost", "fenced")
    total = Line("all", **{name: sum(getattr(line, name) for line in lines) for name in counts})
    say(shown(total))
    say(*left or [f"{time.monotonic() - began:.0f} s; {wrong or 'nothing'} wrong; SEED={seed}"])
    if wrong or asked.keep:
        say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
