"""The items of arrays, from the history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from taskflow_api.access import InServices, Namespace, TaskName, may_on
from taskflow_api.documented import PROBLEMS
from taskflow_api.tasks.routes import ONE, find_task
from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.domain.resource import Model
from taskflow_core.domain.task import MAX_ARRAY_ITEMS

router = APIRouter(tags=["tasks"], responses=PROBLEMS)


class ItemView(Model):
    """Neighbouring items of an array that ended alike; those with a result or an error of their own stand alone."""

    first: int
    last: int
    state: ItemState
    attempts: int
    result: Any = None
    reason: str | None = None
    error_type: str = ""
    message: str = ""


class ItemPage(Model):
    """Part of a list, by their indices."""

    items: list[ItemView]
    next: int | None
    """Send it as `after` for the next page; null at the end."""


@router.get(
    ONE + "/items",
    operation_id="listItems",
    summary="List the items of an array that have ended",
    dependencies=[Depends(may_on("get"))],
)
async def list_items(
    namespace: Namespace,
    name: TaskName,
    services: InServices,
    state: ItemState | None = None,
    after: Annotated[int, Query(ge=-1, le=MAX_ARRAY_ITEMS, description="Last index of the former page.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ItemPage:
    """From the history. An item that is in none of them has not ended."""
    _, view = await find_task(services, namespace, name)
    rows = await services.history.list_items(view.uid, state=state, after=after, limit=limit + 1)
    page = rows[:limit]
    return ItemPage(items=[_view(row) for row in page], next=page[-1].last if len(rows) > limit else None)


def _view(row: ItemRow) -> ItemView:
    return ItemView(**{field: getattr(row, field) for field in ItemView.model_fields})
