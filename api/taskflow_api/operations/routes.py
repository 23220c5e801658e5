"""Routes that start, list, read and delete operations. `runner` carries them out."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from taskflow_api.http import cursors
from taskflow_api.http.access import may
from taskflow_api.http.kubernetes_auth import Caller
from taskflow_api.http.names import TASKS, Namespace
from taskflow_api.http.openapi import PROBLEMS, problem
from taskflow_api.http.problems import FieldError, ProblemError
from taskflow_api.http.services import InServices, Services
from taskflow_api.operations.model import (
    Operation,
    OperationBody,
    OperationPage,
    Verb,
    phases,
    stored_caller,
    view,
)
from taskflow_core.errors import NotFound
from taskflow_core.store.operations import MAX_RUNNING, OperationRow

COLLECTION = "/v1/namespaces/{namespace}/operations"
ONE = COLLECTION + "/{operation:part}"
OperationId = Annotated[str, Path(max_length=32, pattern=r"^[0-9a-f]{32}$")]
router = APIRouter(tags=["operations"], responses=PROBLEMS)


@router.post(
    TASKS + ":cancel",
    status_code=202,
    operation_id="cancelTasks",
    summary="Cancel many Tasks",
    responses=problem(429),
    dependencies=[Depends(may("list"))],
)
async def cancel_tasks(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: OperationBody,
    services: InServices,
    caller: Annotated[Caller, Depends(may("patch"))],
) -> Operation:
    """Starts an operation, whose URL is in `Location`. It selects Tasks that exist now and are in the history."""
    return await _start(request, response, services, namespace, "cancel", body, caller)


@router.post(
    TASKS + ":retry",
    status_code=202,
    operation_id="retryTasks",
    summary="Retry many Tasks",
    responses=problem(429),
    dependencies=[Depends(may("list"))],
)
async def retry_tasks(
    request: Request,
    response: Response,
    namespace: Namespace,
    body: OperationBody,
    services: InServices,
    caller: Annotated[Caller, Depends(may("create"))],
) -> Operation:
    """Starts an operation. Each Task is retried once, even if the servers restart meanwhile."""
    return await _start(request, response, services, namespace, "retry", body, caller)


@router.get(
    COLLECTION,
    operation_id="listOperations",
    summary="List operations, newest first",
    dependencies=[Depends(may("list"))],
)
async def list_operations(
    namespace: Namespace,
    services: InServices,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> OperationPage:
    """Operations of all callers."""
    scope = [namespace, "operations"]
    after = cursors.position(cursor, scope)
    rows = await services.history.list_operations(namespace, after=after, limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    following = cursors.encode((last.created_at, last.id), scope) if last is not None else None
    return OperationPage(items=[view(row) for row in rows[:limit]], next_cursor=following)


@router.get(
    ONE, operation_id="getOperation", summary="Get the progress of an operation", dependencies=[Depends(may("list"))]
)
async def get_operation(namespace: Namespace, operation: OperationId, services: InServices) -> Operation:
    """The counts are updated after each batch."""
    row = await services.history.get_operation(namespace, operation)
    if row is None:
        raise NotFound(f"there is no operation {operation} in namespace {namespace}")
    return view(row)


@router.delete(
    ONE,
    status_code=204,
    operation_id="deleteOperation",
    summary="Stop and delete an operation",
    dependencies=[Depends(may("patch"))],
)
async def delete_operation(namespace: Namespace, operation: OperationId, services: InServices) -> None:
    """It stops after the current batch. Changes already made are kept."""
    if not await services.history.remove_operation(namespace, operation):
        raise NotFound(f"there is no operation {operation} in namespace {namespace}")


async def _start(
    request: Request,
    response: Response,
    services: Services,
    namespace: str,
    verb: Verb,
    body: OperationBody,
    caller: Caller,
) -> Operation:
    try:
        phases(verb, body.filter.phase)
    except ValueError as error:
        found = FieldError(pointer="/filter/phase", detail=str(error))
        raise ProblemError(422, f"Tasks in that phase cannot be selected to {verb}", errors=[found]) from error
    row = OperationRow(
        id=uuid.uuid4().hex,
        namespace=namespace,
        verb=verb,
        filter=body.filter.model_dump(mode="json", by_alias=True, exclude_none=True),
        caller=stored_caller(caller),
        state="Running",
        problems=[],
        created_at=services.now(),
    )
    request.state.audit |= {"verb": f"{verb} many", "operation": row.id}
    if not await services.history.start_operation(row):
        raise ProblemError(
            429,
            f"namespace {namespace} already runs {MAX_RUNNING} operations, the limit",
            code="too-many-operations",
            retry_after="10",
        )
    response.headers["Location"] = f"/v1/namespaces/{namespace}/operations/{row.id}"
    return view(row)
