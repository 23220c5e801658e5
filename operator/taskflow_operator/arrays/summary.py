"""What the status of an array says, from what is known of it. Pure."""

from __future__ import annotations

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_FAILED_CHARS, ArraySpec, ArrayStatus, Progress
from taskflow_operator.arrays.state import ArrayState
from taskflow_operator.tasks.rules.decision import End

_IN_MESSAGE = 200
"""Characters of failed indices that a message shows."""


def array_status(run: ArrayState) -> ArrayStatus:
    """Its counters; less than 2 KiB, whatever happened."""
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
    """The same for whoever watches the progress of any Task."""
    return Progress(done=run.ended, total=run.total)


def too_many(spec: ArraySpec, run: ArrayState) -> End | None:
    """Whether so many items failed that the others need not be run."""
    if spec.max_failures is None or run.failed <= spec.max_failures:
        return None
    return End(
        Phase.FAILED,
        Reason.TOO_MANY_FAILURES,
        f"{run.failed} items failed, maxFailures is {spec.max_failures}: {run.failed_shown.shown(_IN_MESSAGE)}",
    )


def verdict(spec: ArraySpec, run: ArrayState) -> End:
    """What the Task comes to once all items have ended."""
    if (end := too_many(spec, run)) is not None:
        return end
    if run.failed and spec.max_failures is None:
        failed = run.failed_shown.shown(_IN_MESSAGE)
        return End(Phase.FAILED, Reason.ITEMS_FAILED, f"{run.failed} of {run.total} items failed: {failed}")
    allowed = f", {run.failed} failed of {spec.max_failures} that may" if run.failed else ""
    return End(Phase.SUCCEEDED, Reason.SUCCEEDED, f"{run.total} items ended{allowed}")
