"""Completion by kubectl, which asks an executable `kubectl_complete-taskflow` in the protocol of Cobra."""

from __future__ import annotations

import sys

from click.shell_completion import ShellComplete

from taskflow_cli.options import Surroundings
from taskflow_cli.program import program

_NO_FILES = 4
"""Cobra's directive: complete with these alone, not with files."""
_FILES = 0


def kubectl_main() -> int:
    """Print what completes the last argument, one in a line, then the directive."""
    *before, last = sys.argv[1:] or [""]
    complete = ShellComplete(program, {"obj": Surroundings()}, "kubectl taskflow", "")
    found = complete.get_completions(before, last)
    files = any(each.type in {"file", "dir"} for each in found)
    for each in found:
        if each.type == "plain":
            print(f"{each.value}\t{each.help}" if each.help else each.value)  # noqa: T201 - the protocol
    print(f":{_FILES if files else _NO_FILES}")  # noqa: T201
    return 0
