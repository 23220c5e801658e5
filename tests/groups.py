"""Which tests a process runs one after the other when several processes share the tests, and which groups come first.

A process starts the servers of a package once, so the groups of a package stand together; what takes long stands first.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_FIRST = (
    "e2e/test_documents.py",
    "e2e/test_webhooks.py",
    "e2e/test_logins.py",
    "e2e/test_cli_dev.py",
    "e2e",
    "attack",
    "chart",
    "integration/services/test_sentinel.py",
    "integration/api",
    "integration/local",
    "integration/taskflow_operator",
    "integration/taskflow_worker",
)
"""Modules and folders in their order; those that are not named follow, `unit` last.

Modules with stacks of their own come before the rest of their folder, or its stack would run beside theirs.
"""
_WHOLE = ("attack", "integration/crds", "contract")
"""Packages whose servers cost more than their tests."""
_SINGLE = ("e2e/test_documents.py", "integration/local/test_stack.py")
"""Modules in which each test starts what it needs."""


def group_of(node_id: str) -> str:
    """The name of a test's group: a package, a module or the test itself."""
    path = _path(node_id)
    for package in _WHOLE:
        if path.startswith(package + "/"):
            return package
    return node_id if path in _SINGLE else path


def order_of(item: pytest.Item) -> int:
    """The position of the item's folder."""
    path = PurePosixPath(_path(item.nodeid))
    if path.parts[0] == "unit":
        return len(_FIRST) + 1
    places = {str(path), *map(str, path.parents)}
    return next((at for at, each in enumerate(_FIRST) if each in places), len(_FIRST))


def _path(node_id: str) -> str:
    return node_id.partition("::")[0].removeprefix("tests/")


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out the groups in the order in which they were collected; one process begins at the end.

    The first ones mostly wait, for leases and for processes that end; the last ones compute, and fill the pauses.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _assign_work_unit(self, node: WorkerController) -> None:
        if len(self.nodes) > 1 and node is self.nodes[-1]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
