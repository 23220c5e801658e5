"""The route that lets a Task with `spec.rerun` run again."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from taskflow_api.http.access import may_on
from taskflow_api.http.names import Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import ProblemError
from taskflow_api.http.services import InServices

RUN = "/v1/namespaces/{namespace}/run-once/{name}"
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


@router.delete(
    RUN,
    status_code=204,
    operation_id="forgetRuns",
    summary="Let the Tasks of a name run again",
    dependencies=[Depends(may_on("delete"))],
)
async def forget_runs(namespace: Namespace, name: Name, services: InServices) -> None:
    """Forgets what Tasks of this name did with rerun UnlessSucceeded or Never: the next one that is created runs.

    Takes the right to delete the Task. The history stays, and so does an existing resource. 404 if nothing is known.
    """
    if not await services.history.forget_runs(namespace, name):
        raise ProblemError(404, f"no Task {name} of namespace {namespace} is known to have run with rerun set")
