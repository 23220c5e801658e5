"""The command lines that local mode prints: they work wherever they are pasted."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "taskflow-local"


def program() -> str:
    """How a shell finds this program: by its name if PATH leads to it, else by its path."""
    beside = Path(sys.executable).with_name(NAME)
    found = shutil.which(NAME)
    if found is not None and (not beside.exists() or Path(found).resolve() == beside.resolve()):
        return NAME
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m taskflow_local"


def command(*arguments: str, state: Path | None = None) -> str:
    """A command line of this program, for the stack in a state folder."""
    chosen = () if state is None else ("--state", str(state))
    return " ".join((program(), shlex.join((*arguments, *chosen))))


def environment(state: Path) -> str:
    """The command that makes kubectl and clients of a shell use the stack in a state folder."""
    return f'eval "$({command("env", state=state)})"'
