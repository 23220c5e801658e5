"""Checks a schedule's template: what the operator would refuse in each Task, and what Kubernetes would not keep."""

from __future__ import annotations

from itertools import islice
from typing import Any

from taskflow_api.http.problems import FieldError, ProblemError, pointer
from taskflow_api.schedules.schemas import ScheduleSpecBody
from taskflow_api.tasks.payload import MAX_ERRORS, check_payload, not_kept
from taskflow_core.domain.task import MAX_JSON_LEVELS, nested_deeper

_TEMPLATE = ("spec", "taskTemplate", "spec")


def check_schedule(spec: ScheduleSpecBody) -> None:
    """Check the payload of the Tasks, as that of a single Task.

    Raises:
        ProblemError: 413 or 422.
    """
    check_payload(spec.task_template.spec, _TEMPLATE)


def check_template_change(patch: dict[str, Any]) -> None:
    """Check that Kubernetes keeps the values of a merge patch of a template as they are.

    Raises:
        ProblemError: 422.
    """
    # A payload is one level below the patch.
    if nested_deeper([patch], MAX_JSON_LEVELS + 2):
        error = FieldError(pointer=pointer(_TEMPLATE), detail=f"nested deeper than {MAX_JSON_LEVELS} levels")
        raise ProblemError(422, "the payload is nested too deep", errors=[error])
    if errors := list(islice(not_kept(patch, _TEMPLATE), MAX_ERRORS)):
        raise ProblemError(422, "the payload has a value that Kubernetes does not keep as it is", errors=errors)
