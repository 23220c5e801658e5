"""`taskflow-worker describe`: print the TaskTemplate of the handlers, or compare it with a file.

Exit codes:
    0: the manifest is printed, or the file fits the handlers.
    1: the file differs; stdout has the difference.
    2: handlers, or the file, are unusable; stderr says why.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from taskflow_core.errors import Invalid
from taskflow_worker.describe.template import describe, drift, text
from taskflow_worker.handlers.celery_tasks import adopt
from taskflow_worker.sdk.registry import REGISTRY, discover


def main(arguments: Sequence[str]) -> int:
    """Import the handlers and describe them. Returns the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        # A module may print when it is imported, and what Celery says is logged.
        with contextlib.redirect_stdout(sys.stderr):
            discover(parsed.module or _modules())
            if app := parsed.app or os.environ.get("TASKFLOW_WORKER_APP"):
                adopt(app, REGISTRY)
            found = describe(REGISTRY)
        if parsed.check is None:
            print(text(found, parsed.name or "handlers"), end="")
            return 0
        difference = drift(found, _read(parsed.check), parsed.name, str(parsed.check))
    except Invalid as error:
        print(f"taskflow-worker describe: {error}", file=sys.stderr)
        return 2
    print(difference, end="")
    return 1 if difference else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taskflow-worker describe",
        description="Prints the TaskTemplate of the handlers, from their type hints.",
        epilog="Exit codes: 0 printed, or nothing differs; 1 the file differs; 2 handlers or file are unusable.",
    )
    parser.add_argument(
        "--module",
        action="append",
        help="module that registers handlers; may be repeated (TASKFLOW_WORKER_HANDLERS, separated by commas)",
    )
    parser.add_argument("--app", help="Celery application, module:attribute (TASKFLOW_WORKER_APP)")
    parser.add_argument("--name", help="name of the TaskTemplate (handlers)")
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="compare FILE with the handlers and print the difference"
    )
    return parser


def _modules() -> list[str]:
    named = os.environ.get("TASKFLOW_WORKER_HANDLERS", "").split(",")
    return [each.strip() for each in named if each.strip()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path}: cannot be read: {error}") from error
