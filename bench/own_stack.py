"""What every benchmark on real servers has around it: a stack of its own, gone at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from taskflow_local.components import ALL
from taskflow_local.stack import Stack

CODE = Path(__file__).parent / "code"
"""Handlers of the workers."""


def say(text: str) -> None:
    """One line at once."""
    print(text, flush=True)


@contextmanager
def own_stack(components: Sequence[str] = ALL, **environ: str) -> Iterator[Stack]:
    """The components, up, with the benchmarks' handlers and these variables; KUBECONFIG of this process names its API server."""
    with tempfile.TemporaryDirectory(prefix="taskflow-bench-") as folder:
        # Not a private folder: PostgreSQL, which root cannot run, has to pass through.
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "stack", components, environ={**os.environ, "PYTHONPATH": str(CODE), **environ})
        try:
            stack.up(log=lambda line: say(f"  {line}"))
            os.environ["KUBECONFIG"] = str(stack.kubeconfig)
            yield stack
        finally:
            stack.down(log=lambda _: None)
