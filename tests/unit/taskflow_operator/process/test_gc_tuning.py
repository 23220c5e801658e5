from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from taskflow_operator.process import gc_tuning

class OpenTask: pass

gc_tuning.collect_rarely()
imported = gc.get_freeze_count()
known = [OpenTask() for _ in range(1000)]
ended = weakref.ref(known[0])
gc_tuning.freeze_known()
assert gc.get_freeze_count() >= imported + 1000, "what is known is looked at"
del known[0]
assert ended() is None, "what is spared is not freed by its last reference"
looks = [generation["collections"] for generation in gc.get_stats()]
more = [OpenTask() for _ in range(50_000)]
assert [generation["collections"] for generation in gc.get_stats()][2] == looks[2], "growth caused a full collection"
cycle = OpenTask()
cycle.self, left = cycle, weakref.ref(cycle)
del cycle
gc.collect()
assert left() is None, "a cycle stays for good"
"""


def test_it_is_looked_rarely_at_what_is_known_and_what_ends_is_freed_all_the_same() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
