"""Many Tasks in one request, each with a result of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field, ValidationError

from taskflow_api.access import InServices, Namespace, may
from taskflow_api.documented import PROBLEMS
from taskflow_api.problems import Problem, ProblemError, problem_of
from taskflow_api.services import Services
from taskflow_api.tasks.creating import Wish, create
from taskflow_api.tasks.routes import COLLECTION, IdempotencyKey, check_name
from taskflow_api.tasks.schemas import Body, TaskBody, examples
from taskflow_core.domain.resource import Model
from taskflow_core.errors import TaskflowError

AT_ONCE = 16
router = APIRouter(tags=["tasks"], responses=PROBLEMS)


class BatchBody(Body):
    """Tasks to create; each is looked at by itself."""

    model_config = examples(
        {"items": [{"generateName": "part-", "spec": {"handler": "taskflow.echo", "args": [n]}} for n in (1, 2)]}
    )

    items: Annotated[
        list[dict[str, Any]], Field(min_length=1, max_length=1000, description="Each as for creating one Task.")
    ]


class BatchItem(Model):
    """What became of one of them."""

    status: int
    """201 created, 200 created by an earlier request with this key, else as in `problem`."""
    name: str | None = None
    uid: str | None = None
    problem: Problem | None = None


class BatchResult(Model):
    """In the order of the request."""

    items: list[BatchItem]


@router.post(
    COLLECTION + ":batch",
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
    """Always 200, with a result for each. With an Idempotency-Key the whole request may be repeated."""
    request.state.audit["name"] = f"batch of {len(body.items)}"
    slots = asyncio.Semaphore(AT_ONCE)
    caller = request.state.caller.username

    async def one(number: int, item: dict[str, Any]) -> BatchItem:
        key = None if idempotency_key is None else f"{idempotency_key}/{number}"
        async with slots:
            return await _create(request, services, namespace, item, Wish(caller=caller, key=key))

    return BatchResult(items=await asyncio.gather(*(one(number, item) for number, item in enumerate(body.items))))


async def _create(request: Request, services: Services, namespace: str, item: dict[str, Any], wish: Wish) -> BatchItem:
    try:
        # As JSON, which is how a single one is read: a date is a string there.
        wanted = TaskBody.model_validate_json(json.dumps(item))
        check_name(wanted, wish.key)
        created = await create(services, namespace, wanted, wish)
    except (ValidationError, ProblemError, TaskflowError) as error:
        problem = problem_of(request.scope, error)
        return BatchItem(status=problem.status, problem=problem)
    uid = created.body["metadata"]["uid"] if created.body is not None else None
    return BatchItem(status=200 if created.replayed else 201, name=created.name, uid=uid)
