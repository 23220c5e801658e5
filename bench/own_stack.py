"""The environment of every benchmark on real servers: its own stack, deleted at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from taskflow_local.components import ALL
from taskflow_local.stack import Stack

CODE = Path(__file__).parent / "code"
"""Folder with the handlers of the workers."""


def say(text: str) -> None:
    """Print a line without buffering."""
    print(text, flush=True)


@contextmanager
def own_stack(components: Sequence[str] = ALL, **environ: str) -> Iterator[Stack]:
    """A running stack with the benchmarks' handlers and these variables. Sets KUBECONFIG of this process."""
    with tempfile.TemporaryDirectory(prefix="taskflow-bench-") as folder:
        # Not a private folder: the user that runs PostgreSQL must be able to enter it.
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "stack", components, environ={**os.environ, "PYTHONPATH": str(CODE), **environ})
        try:
            stack.up(log=lambda line: say(f"  {line}"))
            os.environ["KUBECONFIG"] = str(stack.kubeconfig)
            yield stack
        finally:
            stack.down(log=lambda _: None)
