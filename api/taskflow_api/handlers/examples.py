"""An example of the arguments of a handler, from their JSON Schema. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MOST_CHARS = 64
_MOST_ITEMS = 8
_LEVELS = 4


def example(schema: Mapping[str, Any], level: int = 0) -> Any:
    """A value that fits the schema, with its required properties only. Patterns are not looked at.

    Args:
        schema: of the subset that a TaskTemplate may have; anything else is read as well as it goes.
        level: how deep the schema is in another one.
    """
    if "default" in schema:
        return schema["default"]
    if isinstance(allowed := schema.get("enum"), list) and allowed:
        return allowed[0]
    kind = schema.get("type", "object" if "properties" in schema else "null")
    makers: dict[Any, Callable[[], Any]] = {
        "object": lambda: _object(schema, level) if level < _LEVELS else {},
        "array": lambda: _array(schema, level),
        "string": lambda: _text(schema),
        "integer": lambda: _number(schema, whole=True),
        "number": lambda: _number(schema, whole=False),
        "boolean": lambda: False,
    }
    first = kind[0] if isinstance(kind, list) and kind else kind
    return makers[first]() if isinstance(first, str) and first in makers else None


def _array(schema: Mapping[str, Any], level: int) -> list[Any]:
    return [example(_part(schema, "items"), level + 1)] * min(_count(schema, "minItems"), _MOST_ITEMS)


def _text(schema: Mapping[str, Any]) -> str:
    most = _count(schema, "maxLength") if "maxLength" in schema else _MOST_CHARS
    return "text".ljust(min(_count(schema, "minLength"), _MOST_CHARS), "t")[:most]


def _object(schema: Mapping[str, Any], level: int) -> dict[str, Any]:
    properties = _part(schema, "properties")
    required = schema.get("required")
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return {name: example(_part(properties, name), level + 1) for name in names}


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    ends = [each for each in (low, high, above, below) if each is not None]
    for value in (0, *ends, *(each + 1 for each in ends), *(each - 1 for each in ends), sum(ends) / max(len(ends), 1)):
        fits = (
            (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
            and (below is None or value < below)
        )
        if fits and (not whole or value == int(value)):
            return int(value) if whole else value
    return 0


def _bound(schema: Mapping[str, Any], name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(schema: Mapping[str, Any], name: str) -> int:
    value = schema.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


def _part(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, Mapping) else {}
