"""What a feature adds to the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from prometheus_client.registry import Collector

Loop = Callable[[], Awaitable[None]]
"""Starts what runs until cancelled."""


@dataclass(frozen=True)
class Part:
    """Loops of a feature by their names, and its computed metrics."""

    loops: Mapping[str, Loop] = field(default_factory=dict)
    collectors: tuple[Collector, ...] = ()
