"""Refuses what a request says twice: a query parameter, or a name in an object of its body.

Programs differ in which one of them they take, so the caller may have meant another one than the server did.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from taskflow_api.http.problems import FieldError, ProblemError, pointer


class _Repeating(dict[str, Any]):
    """An object of a JSON text with a name that it has more than once."""

    def __init__(self, members: Sequence[tuple[str, Any]]) -> None:
        super().__init__(members)
        self.repeated = [name for name, count in Counter(name for name, _ in members).items() if count > 1]


async def without_repetitions(request: Request) -> None:
    """A dependency: no parameter and no name is given twice. No parameter of this API is a list.

    Raises:
        ProblemError: 422.
    """
    names = Counter(name for name, _ in request.query_params.multi_items())
    errors = [
        FieldError(location="query", pointer=pointer([name]), detail=f"expected once, found {count} times")
        for name, count in names.items()
        if count > 1
    ]
    if errors:
        raise ProblemError(422, "a query parameter is given more than once", errors=errors)
    route = request.scope.get("route")
    if isinstance(route, APIRoute) and route.body_field is not None:
        # FastAPI has read it already, and parsed it.
        errors = repeated_names(await request.body())
        if errors:
            raise ProblemError(422, "an object of the body has a name more than once", errors=errors)


def repeated_names(text: bytes) -> list[FieldError]:
    """The names that an object of a JSON text has more than once. None if the text is not JSON."""
    found = False

    def made(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        plain = dict(members)
        if len(plain) == len(members):
            return plain
        found = True
        return _Repeating(members)

    try:
        whole = json.loads(text, object_pairs_hook=made)
    except ValueError:
        return []
    return list(_repeated(whole, ())) if found else []


def _repeated(value: Any, path: tuple[str, ...]) -> Iterator[FieldError]:
    if isinstance(value, _Repeating):
        for name in value.repeated:
            yield FieldError(pointer=pointer((*path, name)), detail="expected once, found more than once")
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _repeated(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _repeated(each, (*path, str(index)))
