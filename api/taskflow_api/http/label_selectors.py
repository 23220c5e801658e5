"""The `labelSelector` query parameter."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from taskflow_api.http.problems import FieldError, ProblemError
from taskflow_core.domain import selectors

LabelSelector = Annotated[
    str | None,
    Query(
        alias="labelSelector",
        max_length=selectors.MAX_CHARS,
        description="As in Kubernetes: `team=a,tier in (front,back),!canary`.",
        examples=["team=a"],
    ),
]


def requirements(text: str | None) -> tuple[selectors.Requirement, ...]:
    """The requirements of a label selector.

    Raises:
        ProblemError: 422.
    """
    try:
        return selectors.parse(text or "")
    except ValueError as error:
        found = FieldError(location="query", pointer="/labelSelector", detail=str(error))
        raise ProblemError(422, "labelSelector is not a valid label selector", errors=[found]) from error
