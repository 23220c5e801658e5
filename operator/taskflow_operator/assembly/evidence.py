"""Assembles what knows why workers died."""

from __future__ import annotations

from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.part import Part
from taskflow_operator.evidence.pod_observer import SELECTOR, PodObserver
from taskflow_operator.runtime.kind_watch import KindWatch


def build(base: Foundation) -> tuple[PodObserver, Part]:
    """The pods of workers. Their watch is no `Part.watches`: without it, leases run out all the same."""
    pods = PodObserver(base.kube, lease_seconds=base.settings.lease_seconds)
    watch = KindWatch(base.kube, "pods", pods, group="api/v1", labels=SELECTOR)
    return pods, Part({"watch-pods": watch.run})
