"""`python -m bench.rules`: a simulation of our scaling rule against KEDA with an HPA; seconds.

Both rules see the same traces and the same pods. `brief` is the burst of `bench.scaling`. `long` mixes Tasks of
minutes with Tasks of seconds and has a pause between two bursts, so that both rules scale down while Tasks run.
"""

from __future__ import annotations

import random
import statistics
import sys

from bench import elsewhere, ours
from bench.machine import percentile
from bench.replay import Outcome, Trace
from bench.scaling import MOST, SEED, SLOTS, trace
from taskflow_core.domain.workerpool import Scaling

START_SECONDS = 3.0
BURST, LONG_SHARE, LONG_SECONDS = 400, 0.15, (60.0, 600.0)
SPREAD_SECONDS, NEXT_BURST_SECONDS = 60.0, 1800.0


def long_trace(seed: int) -> Trace:
    """Two bursts: most Tasks take 0.1 to 20 s, some 1 to 10 minutes."""
    draw = random.Random(seed)
    found = []
    for begins in (0.0, NEXT_BURST_SECONDS):
        for _ in range(BURST):
            bounds = LONG_SECONDS if draw.random() < LONG_SHARE else (0.1, 20.0)
            found.append((begins + draw.uniform(0, SPREAD_SECONDS), round(draw.uniform(*bounds), 2)))
    return sorted(found)


def row(name: str, rule: str, found: Outcome) -> str:
    """One line of the table."""
    return (
        f"{name:<8}{rule:<24}{statistics.median(found.waited):>10.1f}{percentile(list(found.waited), 0.99):>10.1f}"
        f"{found.killed:>10}{found.lost_seconds:>10.0f}{found.never:>8}{found.ended:>10.0f}"
    )


def table(seed: int) -> list[str]:
    """Run both rules on both traces."""
    lines = [
        f"{'trace':<8}{'rule':<24}{'wait p50':>10}{'wait p99':>10}{'cut':>10}{'s lost':>10}{'never':>8}{'ended':>10}"
    ]
    for name, tasks in (("brief", trace()), ("long", long_trace(seed))):
        mine = ours.simulate(tasks, slots=SLOTS, scaling=Scaling(max_replicas=MOST), start_seconds=START_SECONDS)
        other = elsewhere.simulate(tasks, slots=SLOTS, most=MOST, start_seconds=START_SECONDS, seed=seed)
        lines += [row(name, "TaskFlow", mine), row(name, "KEDA and HPA", other)]
    return lines


if __name__ == "__main__":
    print(
        f"0 to {MOST} pods of {SLOTS} slots, {START_SECONDS:.0f} s to start one,"
        f" defaults of both rules, seed {SEED}; seconds"
    )
    print("\n".join(table(SEED)))
    sys.exit(0)
