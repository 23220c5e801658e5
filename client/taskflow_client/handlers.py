"""Calls for the handlers that TaskTemplates describe."""

from __future__ import annotations

from dataclasses import replace

from taskflow_client.calls import Call, as_model, path
from taskflow_client.models import HandlerPage


def listed(namespace: str) -> Call[HandlerPage]:
    """List handlers by TaskTemplate. `Client.pages` gets all pages."""

    def following(page: HandlerPage) -> Call[HandlerPage] | None:
        return replace(call, params={"cursor": page.next_cursor}) if page.next_cursor else None

    call = Call("GET", path(namespace, "handlers"), as_model(HandlerPage), following=following)
    return call
