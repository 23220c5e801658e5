"""What a feature adds to the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.registry import Collector

from taskflow_operator.runtime.kind_watch import KindWatch

Loop = Callable[[], Awaitable[None]]
"""Starts what runs until cancelled."""


@dataclass(frozen=True)
class Part:
    """Loops of a feature by their names, the kinds that it watches, and its computed metrics.

    Watches are listed before any loop runs, in the order of the parts, and run like loops.
    """

    loops: Mapping[str, Loop] = field(default_factory=dict)
    watches: tuple[KindWatch, ...] = ()
    collectors: tuple[Collector, ...] = ()


def all_loops(parts: Iterable[Part]) -> dict[str, Loop]:
    """The loops and watches of all parts.

    Raises:
        ValueError: two of them have the same name.
    """
    loops: dict[str, Loop] = {}
    for part in parts:
        watches = {f"watch-{watch.name}": watch.run for watch in part.watches}
        for name, loop in {**part.loops, **watches}.items():
            if name in loops:
                raise ValueError(f"two loops are called {name!r}")
            loops[name] = loop
    return loops
