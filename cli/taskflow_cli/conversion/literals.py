"""Values in Python source, read without running it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


class NotConstant(ValueError):  # noqa: N818 - what a value is not
    """The value is known only when the program runs."""


def constants_of(tree: ast.Module) -> dict[str, Any]:
    """Names at the top of a module that stand for one constant value."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(target := node.targets[0], ast.Name):
            try:
                found[target.id] = value_of(node.value, found)
            except NotConstant:
                found.pop(target.id, None)
    return found


def value_of(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of an expression of literals, their arithmetic, and known names.

    Raises:
        NotConstant: it has anything else.
    """
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = value_of(node.left, names), value_of(node.right, names)
        # Numbers only: "a" * 10**9 is a constant too.
        if all(isinstance(each, int | float) for each in (left, right)):
            try:
                return _OPERATORS[type(node.op)](left, right)
            except ArithmeticError as error:
                raise NotConstant(f"{ast.unparse(node)}: {error}") from None
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [value_of(each, names) for each in node.elts]
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise NotConstant(f"{_shown(node)} has another dict within")
        return {
            value_of(key, names): value_of(each, names) for key, each in zip(node.keys, node.values, strict=True) if key
        }
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise NotConstant(f"{_shown(node)} is no constant") from None


def name_of(node: ast.expr) -> str:
    """The last part of a name such as `celery.schedules.crontab`; empty if it is none."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else text[:39] + "…"  # noqa: PLR2004 - enough to find it
