"""The route that lists the finished items of an array, from the history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from taskflow_api.http.access import may_on
from taskflow_api.http.names import TASK, Name, Namespace
from taskflow_api.http.openapi import PROBLEMS
from taskflow_api.http.services import InServices
from taskflow_api.tasks.lookup import find_task
from taskflow_core.domain.array import MAX_ARRAY_ITEMS
from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.domain.resource import Model

router = APIRouter(tags=["tasks"], responses=PROBLEMS)


class ItemView(Model):
    """A range of items with the same outcome. An item with its own result or error is a range of one."""

    first: int
    last: int
    state: ItemState
    attempts: int
    result: Any = None
    reason: str | None = None
    error_type: str = ""
    message: str = ""


class ItemPage(Model):
    """A page of items, by index."""

    items: list[ItemView]
    next: int | None
    """Send it as `after` for the next page; null at the end."""


@router.get(
    TASK + "/items",
    operation_id="listItems",
    summary="List the finished items of an array",
    dependencies=[Depends(may_on("get"))],
)
async def list_items(
    namespace: Namespace,
    name: Name,
    services: InServices,
    state: ItemState | None = None,
    after: Annotated[int, Query(ge=-1, le=MAX_ARRAY_ITEMS, description="The last index of the previous page.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ItemPage:
    """From the history. An item that is not listed has not finished."""
    _, view = await find_task(services, namespace, name)
    rows = await services.history.list_items(view.uid, state=state, after=after, limit=limit + 1)
    page = rows[:limit]
    return ItemPage(items=[_view(row) for row in page], next=page[-1].last if len(rows) > limit else None)


def _view(row: ItemRow) -> ItemView:
    return ItemView(**{field: getattr(row, field) for field in ItemView.model_fields})
