"""The whole product, started for some tests and removed after them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskflow_local.components import ALL
from taskflow_local.stack import Stack
from tests.e2e import audit
from tests.e2e.product import Product

LEASE_SECONDS = 4
CODE = Path(__file__).parent / "code"
"""Modules of handlers."""


@contextmanager
def own_stack(*more: str, audited: bool = True, kind: type[Stack] = Stack, **environ: str) -> Iterator[Product]:
    """A stack of its own, with short times.

    Args:
        more: components besides those that there are by default.
        audited: what its components ask of the API server counts among the rights that are used.
        kind: of the stack.
        environ: further settings.
    """
    # Not pytest's own folder: PostgreSQL, which root cannot run, has to pass through.
    folder = Path(tempfile.mkdtemp(prefix="taskflow-e2e-"))
    folder.chmod(0o711)
    whole = {
        **os.environ,
        "PYTHONPATH": str(CODE),
        "TASKFLOW_LEASE_SECONDS": str(LEASE_SECONDS),
        "TASKFLOW_RESYNC_SECONDS": "5",
        **environ,
    }
    stack = kind(folder / "stack", (*ALL, *more), environ=whole)
    if audited:
        audit.begin(stack)
    product = Product(stack, folder)
    try:
        stack.up(log=lambda _: None)
        yield product
    finally:
        product.close()
        stack.down()
        if audited:
            audit.keep(stack)
        if "TASKFLOW_KEEP" not in os.environ:
            shutil.rmtree(folder)
