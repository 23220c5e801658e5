"""Makes Python collect cyclic garbage rarely.

A full collection stops the operator for a quarter of a second with 10,000 open Tasks. With Python's own thresholds
there is one every few seconds while Tasks come and go, although almost nothing is cyclic: objects are freed with their
last reference.
"""

from __future__ import annotations

import gc

_NET_ALLOCATIONS, _YOUNG, _MIDDLE = 10_000, 10, 50
"""See `gc.set_threshold`. A collection of the youngest generation takes some milliseconds."""


def collect_rarely() -> None:
    """Call it once everything is imported. What was imported is excluded from collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NET_ALLOCATIONS, _YOUNG, _MIDDLE)


def freeze_known() -> None:
    """Exclude the open Tasks that were listed at the start from collections. Each is still freed when it ends."""
    gc.freeze()
