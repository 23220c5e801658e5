"""Which tests a process runs one after the other when several processes share the tests, and which groups come first.

A process starts the servers of a package once, so the groups of a package stand together; what takes long stands first.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

_HERE = Path(__file__).parent
_FIRST = (
    "e2e",
    "chart",
    "integration/api",
    "integration/local",
    "integration/taskflow_operator",
    "integration/taskflow_worker",
)
"""Folders in their order; those that are not named follow, `unit` last."""
_WHOLE = ("integration/api", "integration/crds", "contract")
"""Packages whose servers are dear beside their tests."""
_SINGLE = ("e2e/test_documents.py", "integration/local/test_stack.py")
"""Modules in which each test starts what it needs."""


def group_of(item: pytest.Item) -> str:
    """The name of an item's group: a package, a module or the test itself."""
    path = item.path.relative_to(_HERE).as_posix()
    for package in _WHOLE:
        if path.startswith(package + "/"):
            return package
    return f"{path}::{item.name}" if path in _SINGLE else path


def order_of(item: pytest.Item) -> int:
    """Where the item's folder stands."""
    path = item.path.relative_to(_HERE)
    if path.parts[0] == "unit":
        return len(_FIRST) + 1
    folders = {PurePosixPath(each) for each in path.parents}
    return next((at for at, each in enumerate(_FIRST) if PurePosixPath(each) in folders), len(_FIRST))


def share_out(items: list[pytest.Item]) -> None:
    """Give each item its group, and bring them into the order in which the groups are handed out."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    items.sort(key=order_of)
