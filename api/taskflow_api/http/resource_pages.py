"""Pages of live resources: the cursor is the API server's own `continue` token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query

from taskflow_api.http.problems import ProblemError
from taskflow_core.errors import Conflict, Invalid
from taskflow_core.kube.client import Requests

ResourceCursor = Annotated[str | None, Query(max_length=1024, pattern=r"^[A-Za-z0-9_=-]+$")]


@dataclass(frozen=True, slots=True)
class ResourcePage:
    """A page of a list."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    """None at the end."""


async def resource_page(
    kube: Requests, path: str, limit: int, cursor: str | None, label_selector: str | None = None
) -> ResourcePage:
    """A page of the resources at a path.

    Args:
        kube: the API server.
        path: of the list.
        limit: resources of a page.
        cursor: of the page before; None for the first.
        label_selector: one that was validated, so that what the API server refuses is the cursor.

    Raises:
        ProblemError: 400, the cursor has expired, or does not belong to this list.
    """
    params = {"limit": str(limit), "continue": cursor, "labelSelector": label_selector}
    given = {name: value for name, value in params.items() if value}
    try:
        page = await kube.request("GET", path, params=given)
    except Conflict as error:
        raise ProblemError(400, "the cursor has expired; start again without it", code="bad-cursor") from error
    except Invalid as error:
        detail = "the cursor does not belong to this list; start again without it"
        raise ProblemError(400, detail, code="bad-cursor") from error
    return ResourcePage(page["items"], page["metadata"].get("continue") or None)
