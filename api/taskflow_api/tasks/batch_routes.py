"""The route that creates many Tasks in one request, each with its own result."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field, ValidationError

from taskflow_api.http.access import may
from taskflow_api.http.body import Body, examples
from taskflow_api.http.names import TASKS, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.problems import Problem, ProblemError, problem_of
from taskflow_api.http.services import InServices, Services
from taskflow_api.tasks.creation import CreateOptions, check_name, create
from taskflow_api.tasks.schemas import IdempotencyKey, TaskBody
from taskflow_core.domain.resource import Model
from taskflow_core.errors import TaskflowError

MAX_CONCURRENT = 16
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


class BatchBody(Body):
    """Tasks to create. Each is validated on its own."""

    model_config = examples(
        {"items": [{"generateName": "part-", "spec": {"handler": "taskflow.echo", "args": [n]}} for n in (1, 2)]}
    )

    items: Annotated[
        list[dict[str, Any]], Field(min_length=1, max_length=1000, description="Each as the body of a single creation.")
    ]


class BatchItem(Model):
    """The result of one item."""

    status: int
    """201: created. 200: created by an earlier request with the same key. Otherwise the status of `problem`."""
    name: str | None = None
    uid: str | None = None
    problem: Problem | None = None


class BatchResult(Model):
    """The results, in the order of the request."""

    items: list[BatchItem]


@router.post(
    TASKS + ":batch",
    operation_id="createTasks",
    summary="Create up to 1,000 Tasks",
    dependencies=[Depends(may("create"))],
)
async def create_tasks(
    request: Request,
    namespace: Namespace,
    body: BatchBody,
    services: InServices,
    idempotency_key: IdempotencyKey = None,
) -> BatchResult:
    """Always answers 200, with a result for each item. With an Idempotency-Key, the whole request can be repeated."""
    request.state.audit["name"] = f"batch of {len(body.items)}"
    slots = asyncio.Semaphore(MAX_CONCURRENT)
    caller = request.state.caller.username

    async def one(number: int, item: dict[str, Any]) -> BatchItem:
        key = None if idempotency_key is None else f"{idempotency_key}/{number}"
        async with slots:
            return await _create(request, services, namespace, item, CreateOptions(caller, key))

    return BatchResult(items=await asyncio.gather(*(one(number, item) for number, item in enumerate(body.items))))


async def _create(
    request: Request, services: Services, namespace: str, item: dict[str, Any], options: CreateOptions
) -> BatchItem:
    try:
        # Parsed from JSON like the body of a single creation: in strict mode, only JSON allows a date as a string.
        wanted = TaskBody.model_validate_json(json.dumps(item))
        check_name(wanted, options.key)
        created = await create(services, namespace, wanted, options)
    except (ValidationError, ProblemError, TaskflowError) as error:
        problem = problem_of(request.scope, error)
        return BatchItem(status=problem.status, problem=problem)
    uid = created.body["metadata"]["uid"] if created.body is not None else None
    return BatchItem(status=200 if created.replayed else 201, name=created.name, uid=uid)
