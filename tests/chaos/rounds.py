"""One round: load, faults while it lasts, and what the oracle says of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.chaos.api_server import ApiError
from tests.chaos.faults import OPERATOR, STREAM, Fault
from tests.chaos.ground import eventually
from tests.chaos.items import repeated
from tests.chaos.load import Load
from tests.chaos.oracle import Told, Violation, Wanted, Wrong, beyond_one, judge
from tests.chaos.reading import evidence, waiting
from tests.chaos.schedules import Schedules
from tests.chaos.site import Site

STALL_SECONDS = 120
"""What is open ends one after the other; when none ended for so long, the rest never will."""
QUIET_SECONDS = 60
METRICS = {"duplicate": "taskflow_task_duplicates_fenced_total", "stale": "taskflow_task_stale_finishes_total"}


@dataclass
class Line:
    """A line of the table."""

    fault: str
    tasks: int = 0
    ticks: int = 0
    """Of schedules, that ran."""
    struck: int = 0
    lost: int = 0
    beyond: int = 0
    ticks_twice: int = 0
    ticks_lost: int = 0
    fenced: int = 0
    notice: float | None = None
    recover: float | None = None
    violations: list[Violation] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Faults that could not be struck, among others, and why. They are no strikes."""


HEAD = (
    f"{'fault':<24}{'tasks':>7}{'ticks':>7}{'struck':>8}{'lost':>6}{'beyond 1':>10}{'tick x2':>9}{'tick lost':>11}"
    f"{'fenced':>8}{'notice s':>10}{'recover s':>11}"
)


def shown(line: Line) -> str:
    """As a line of text."""
    notice, recover = (f"{value:.1f}" if value is not None else "-" for value in (line.notice, line.recover))
    text = f"{line.fault:<24}{line.tasks:>7}{line.ticks:>7}{line.struck:>8}{line.lost:>6}{line.beyond:>10}"
    text += f"{line.ticks_twice:>9}{line.ticks_lost:>11}{line.fenced:>8}"
    text += f"{notice:>10}{recover:>11}" + (f"   {len(line.missed)} missed" if line.missed else "")
    return text + (f"   {len(line.violations)} WRONG" if line.violations else "")


class Round:
    """Load and faults on a site.

    Args:
        site: the product.
        name: of the round; the Tasks' names begin with it.
        tasks: at least so many; more while a fault lasts.
        per_second: how fast they are created.
        rest: seconds between two faults of a lane, at most.
        random: of this round alone, so that it can be repeated.
    """

    def __init__(
        self, site: Site, name: str, tasks: int, per_second: float, random: Random, *, rest: float = 0.0
    ) -> None:
        self._site = site
        self._rest = rest
        self._random = random
        self.line = Line(name)
        site.created_over_rest.clear()
        self._load = Load(site.api, name, tasks, per_second, Random(random.getrandbits(64)))
        self._schedules = Schedules(site.api, name, site.record)
        self._runs: list[Wanted] = []
        """Tasks of schedules."""
        self._lock = threading.Lock()
        self._losses = site.data_losses
        self._operator = site.stack.pid("operator")
        self._counted = self._counters()

    def _counters(self) -> dict[str, int]:
        return {kind: int(self._site.counter(name)) for kind, name in METRICS.items()}

    def run(self, lanes: Sequence[Sequence[Fault]]) -> Line:
        """Strike with the faults of each lane one after the other, the lanes side by side; then judge."""
        self._schedules.start()
        self._load.start()
        # A fault is to meet work under way.
        eventually(lambda: len(self._load.wanted), lambda made: made >= 8, 60, "the first Tasks")
        failures: list[BaseException] = []
        began = time.monotonic()

        def strike(lane: Sequence[Fault], random: Random) -> None:
            for fault in lane:
                try:
                    self._strike(fault, random, alone=len(lanes) == 1 and len(lane) == 1)
                except (TimeoutError, ApiError) as error:
                    if len(lanes) == 1:
                        failures.append(error)
                        return
                    # What it needs is hurt by another lane; the next fault may find it whole.
                    self.line.missed.append(f"{fault.name}: {error}")
                except BaseException as error:  # noqa: BLE001 - told below, after the others have healed
                    failures.append(error)
                    return
                # A part that never comes to itself shows nothing of the others.
                time.sleep(random.uniform(0, self._rest))

        threads = [
            threading.Thread(target=strike, args=(lane, Random(self._random.getrandbits(64))), daemon=True)
            for lane in lanes
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        healed = list(self._load.wanted)
        self._load.end()
        for failure in failures:
            raise failure
        self._recover(began, healed)
        self._runs = self._schedules.end()
        self._ended({each.name for each in self._runs})
        self._judge()
        self._schedules.delete()
        return self.line

    def _strike(self, fault: Fault, random: Random, *, alone: bool) -> None:
        if alone:
            threading.Thread(target=self._notice, args=(fault, time.monotonic()), daemon=True).start()
        struck = fault.act(self._site, random)
        with self._lock:
            self.line.struck += struck

    def _notice(self, fault: Fault, began: float) -> None:
        """How long until somebody says so."""
        where, what = fault.says
        site = self._site
        offset = site.stack.log("operator").stat().st_size
        logs, heard = site.worker_logs(), len(site.tap.told)
        while time.monotonic() - began < QUIET_SECONDS:
            if where == STREAM:
                there = any(each.kind == what for each in site.tap.told[heard:])
            elif where == OPERATOR:
                there = what in site.operator_log(offset)
            else:
                there = any(what in _tail(path, logs.get(path, 0)) for path in site.worker_logs())
            if there:
                self.line.notice = time.monotonic() - began
                return
            time.sleep(0.05)

    def _recover(self, began: float, healed: Sequence[Wanted]) -> None:
        """Until everything that was created before the last fault was taken back has finished; then until all has."""
        names = {each.name for each in healed}
        if self._ended(names):
            self.line.recover = time.monotonic() - began
            # Else the oracle says which are left.
            self._ended({each.name for each in self._load.wanted})

    def _ended(self, names: set[str]) -> bool:
        left, since = len(names), time.monotonic()
        while time.monotonic() - since < STALL_SECONDS:
            now = len(names & self._site.api.open_tasks())
            if not now:
                return True
            if now < left:
                left, since = now, time.monotonic()
            time.sleep(min(0.05 + now / 1000, 5.0))
        return False

    def _judge(self) -> None:
        site = self._site
        site.ready_workers()
        try:
            eventually(lambda: waiting(site), lambda left: not left, QUIET_SECONDS, "quiet")
            left: list[str] = []
        except TimeoutError:
            left = waiting(site)
        losses = site.data_losses - self._losses
        metric = None
        if site.stack.pid("operator") == self._operator and not losses:
            metric = {kind: count - self._counted[kind] for kind, count in self._counters().items()}
        wanted = [*self._load.wanted, *site.wanted_over_rest(), *self._runs]
        found = evidence(site, wanted, data_losses=losses, metric=metric, left=left)
        line = self.line
        line.tasks = len(wanted)
        line.ticks, wrong = self._schedules.judged()
        line.violations = [*judge(found), *wrong]
        line.ticks_twice = sum(1 for each in wrong if each.kind is Wrong.TICK_TWICE)
        line.ticks_lost = len(wrong) - line.ticks_twice
        line.lost = sum(1 for each in line.violations if each.kind is Wrong.LOST)
        line.beyond = beyond_one(found.executions) + repeated(found.item_runs)
        line.fenced = sum(1 for each in found.told if _refused(each))


def _refused(each: Told) -> bool:
    return each.kind in METRICS


def _tail(path: object, offset: int) -> str:
    with open(str(path), "rb") as file:  # noqa: PTH123 - a Path or what a listing gave
        file.seek(offset)
        return file.read().decode(errors="replace")
