"""The status of an array, and how it ends. Pure."""

from __future__ import annotations

from taskflow_core.domain.array import MAX_FAILED_CHARS, ArraySpec, ArrayStatus
from taskflow_core.domain.chunks import Counted
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import Progress
from taskflow_operator.arrays.state import ArrayState
from taskflow_operator.tasks.rules.decision import End

_IN_MESSAGE = 200
"""Characters of failed indices that a message shows."""


def array_status(run: ArrayState) -> ArrayStatus:
    """The counters; always less than 2 KiB."""
    of = "?" if run.total is None else run.total
    items = f"{run.ended}/{of}" + (f" ({run.failed} failed)" if run.failed else "")
    shown = run.failed_shown.shown(MAX_FAILED_CHARS)
    if len(run.failed_shown) < run.failed and not shown.endswith("..."):
        shown += ",..."
    return ArrayStatus(
        items=items,
        total=run.total,
        succeeded=run.succeeded,
        failed=run.failed,
        running=run.running,
        retried=run.retried,
        chunk_items=run.sizer.size,
        failed_indexes=shown,
    )


def progress(run: ArrayState) -> Progress:
    """The same as the progress of any Task."""
    return Progress(done=run.ended, total=run.total)


def too_many(spec: ArraySpec, run: ArrayState) -> End | None:
    """Whether too many items failed to run the others."""
    if spec.max_failures is None or run.failed <= spec.max_failures:
        return None
    return End(
        Phase.FAILED,
        Reason.TOO_MANY_FAILURES,
        f"{run.failed} items failed, maxFailures is {spec.max_failures}: {run.failed_shown.shown(_IN_MESSAGE)}",
    )


def verdict(spec: ArraySpec, run: ArrayState) -> End:
    """How the Task ends once all items have ended."""
    if (end := too_many(spec, run)) is not None:
        return end
    if run.failed and spec.max_failures is None:
        failed = run.failed_shown.shown(_IN_MESSAGE)
        return End(Phase.FAILED, Reason.ITEMS_FAILED, f"{run.failed} of {run.total} items failed: {failed}")
    allowed = f", {run.failed} failed of {spec.max_failures} that may" if run.failed else ""
    return End(Phase.SUCCEEDED, Reason.SUCCEEDED, f"{run.total} items ended{allowed}")


def universe(spec: ArraySpec, counted: Counted | None) -> RangeSet | None:
    """The indices to run, before `failedOf` is applied; None while it is unknown how many items there are."""
    total = spec.count if spec.items is None else len(spec.items)
    if spec.items_from is not None:
        if counted is None:
            return None
        total = counted.total
    everything = RangeSet([(0, total - 1)]) if total else RangeSet()
    return everything if spec.indexes is None else RangeSet.parse(spec.indexes) & everything
