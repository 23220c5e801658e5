"""When Python looks for cyclic garbage.

A look at everything stops the operator for a quarter of a second with 10,000 open Tasks, and Python's own thresholds have one each few seconds while Tasks
come and go, though next to nothing of it is cyclic: what ends is freed by its last reference.
"""

from __future__ import annotations

import gc

_NET_ALLOCATIONS, _YOUNG, _MIDDLE = 10_000, 10, 50
"""See `gc.set_threshold`. A look at the youngest takes some milliseconds."""


def collect_rarely() -> None:
    """Once all is imported: that stays, and is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NET_ALLOCATIONS, _YOUNG, _MIDDLE)


def freeze_known() -> None:
    """After the list of all open Tasks, of which there may be very many: they are looked at no more. Each is still freed when it ends."""
    gc.freeze()
