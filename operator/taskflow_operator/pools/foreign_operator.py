"""Finds out that another operator serves a pool too, by the mark that each leaves in its status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARK = "operator"
"""Field of a pool's status: the Lease of the operator that wrote it."""


def foreign_operator(ours: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The operator that replaced our mark, and so is at work now; None if nobody did. A mark that was there before ours
    is that of an operator that may be gone.

    Args:
        ours: our mark.
        before: the status as we last wrote or saw it.
        now: the status that is there.
    """
    found = now.get(MARK)
    return str(found) if before.get(MARK) == ours and found not in (None, "", ours) else None


def explanation(namespace: str, other: str) -> str:
    """What is wrong, and what to do."""
    return (
        f"the operator of Lease {other} serves this pool too: two operators act on the Tasks of namespace "
        f"{namespace!r}, and neither does it right; leave the namespace out of one of them "
        "(TASKFLOW_NAMESPACES, TASKFLOW_NAMESPACES_LEFT_OUT), or uninstall that one"
    )
